"""What this process has used: memory at its peak, seconds of the processor."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path


def peak_mb() -> float:
    """Of its own since it began to run its program: getrusage would count, on Linux, what its
    parent had when it was forked."""
    try:
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_s() -> float:
    """Of this process, all its threads, and of the processes below it that live."""
    below = sum(_ticks(pid) for pid in _below(os.getpid()))
    return time.process_time() + below / os.sysconf("SC_CLK_TCK")


def _below(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from _below(child)


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])
