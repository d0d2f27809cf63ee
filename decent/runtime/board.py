"""What a training process and its communicator share: one piece of anonymous memory.

A page of counters and clocks, the measured local steps (see `worker.accounts`), and the state
(S, d): row 0 is the live parameters. The memory has
no name and is passed on as a file descriptor, so it goes away with the last process that holds it,
also after kill −9. Whole words are written by one side only, so no lock is needed for them.
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np

from decent.worker.probes import PROBES

PAGE = 4096
COUNTERS = (
    "started",
    "completed",
    "answered",
    "abandoned",
    "skipped",
    "models_sent",
    "bytes_sent",
    "bytes_received",
    "last_distance",
)
"""what the communicator tells while it runs; the rest of its statistics come at the end"""


class Board:
    """`slots` × `values` numbers of `dtype`, and the words beside them. `stepped` [accounts,
    PROBES]: what the local steps come to, written in the optimizer's turn. The state begins at byte
    `start`."""

    def __init__(
        self, slots: int, values: int, dtype: str, fd: int | None = None, accounts: int = 0
    ) -> None:
        self.start = PAGE + -(-8 * accounts * PROBES // PAGE) * PAGE
        size = self.start + slots * values * np.dtype(dtype).itemsize
        self.fd = _anonymous(size) if fd is None else fd
        self._memory = mmap.mmap(self.fd, size)
        words = np.frombuffer(self._memory, np.int64, 8)
        reals = np.frombuffer(self._memory, np.float64, 8 + len(COUNTERS), offset=64)
        self._words, self._reals, self._counters = words, reals, reals[8:]
        self.residual = np.frombuffer(self._memory, np.float64, slots, offset=1024)
        self.state: np.ndarray[Any, Any] = np.frombuffer(
            self._memory, dtype, slots * values, offset=self.start
        ).reshape(slots, values)
        self.stepped: np.ndarray[Any, Any] = np.frombuffer(
            self._memory, np.float64, accounts * PROBES, offset=PAGE
        ).reshape(accounts, PROBES)

    # written by training

    def begin(self, steps: int) -> None:
        """So many steps were done before."""
        self._words[0], self._words[3] = steps, 2**62

    @property
    def steps(self) -> int:
        return int(self._words[0])

    @property
    def stepped_s(self) -> float:
        """Monotonic seconds of the last step."""
        return float(self._reals[0])

    def tick(self, now_s: float) -> bool:
        """One more step; True if the communicator asked to be woken at it."""
        self._reals[0] = now_s
        self._words[0] += 1
        return bool(self._words[0] >= self._words[1])

    # written by the communicator

    @property
    def wake_step(self) -> int:
        return int(self._words[1])

    @wake_step.setter
    def wake_step(self, step: float) -> None:
        self._words[1] = math.ceil(min(step, 2**62))

    @property
    def cut_step(self) -> int:
        """The step at whose end a checkpoint is to be taken."""
        return int(self._words[3])

    @cut_step.setter
    def cut_step(self, step: float) -> None:
        self._words[3] = math.ceil(min(step, 2**62))

    @property
    def failed(self) -> bool:
        return bool(self._words[2])

    def fail(self) -> None:
        self._words[2] = 1

    def publish(self, stats: dict[str, Any]) -> None:
        for position, name in enumerate(COUNTERS):
            value = stats[name]
            self._counters[position] = sum(value.values()) if name == "skipped" else value

    def counters(self) -> dict[str, float]:
        return dict(zip(COUNTERS, map(float, self._counters), strict=True))


def _anonymous(size: int) -> int:
    if sys.platform == "linux":
        fd = os.memfd_create("decent")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
