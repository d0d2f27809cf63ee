"""Memory, files and processor time of processes, as Linux tells them."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path


def peak_mb() -> float:
    """The most memory that this process has had of its own since it began to run its program:
    getrusage would count, on Linux, what its parent had when it was forked."""
    try:
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mb(pid: int) -> float:
    """What a process has in memory, shared or not."""
    return _kilobytes(pid, "status", "VmRSS:") / 1024


def proportional_mb(pid: int) -> float:
    """The same, where what several processes share counts in parts."""
    return _kilobytes(pid, "smaps_rollup", "Pss:") / 1024


def open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kilobytes(pid: int, file: str, word: str) -> int:
    """0 where the process is gone, or the system does not say."""
    try:
        words = Path(f"/proc/{pid}/{file}").read_text().split()
        return int(words[words.index(word) + 1])
    except (OSError, ValueError):
        return 0


def cpu_s() -> float:
    """Seconds of the processor: of this process, and of those below it that live."""
    below = sum(_ticks(pid) for pid in _below(os.getpid()))
    return time.process_time() + below / os.sysconf("SC_CLK_TCK")


def _below(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from _below(child)


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
