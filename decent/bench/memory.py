"""The most memory that this process has had."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_mb() -> float:
    """Of its own since it began to run its program: getrusage would count, on Linux, what its
    parent had when it was forked."""
    try:
        words = Path("/proc/self/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) / 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
