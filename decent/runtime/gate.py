"""Turns on the live parameters: the optimizer's step and the communicator's chunks exclude each
other, and the optimizer goes first.

Two POSIX record locks on the shared memory's own descriptor: the kernel lets go of them when their
process dies, whatever kills it. The communicator passes the *turnstile* before each chunk; the
optimizer holds it while it waits and works, so the communicator cannot take the *parameters* twice
in a row from under it. The optimizer waits for at most one chunk.
"""

from __future__ import annotations

import fcntl
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext

TURNSTILE, PARAMETERS = 0, 1
KEPT = 100_000
"""waits that are remembered: a run of millions of steps keeps no more"""


class Gate:
    """Locks by byte of the file behind `fd`; one object per process."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def _take(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, byte)

    def _drop(self, byte: int) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, byte)


class OptimizerGate(Gate):
    """The training process's side. `waits_s` are the seconds it waited, at each of the last steps,
    and `longest_s` the most ever. `turn` is entered inside of each of its turns."""

    def __init__(self, fd: int, turn: AbstractContextManager[object] | None = None) -> None:
        super().__init__(fd)
        self._turn = nullcontext() if turn is None else turn
        self.waits_s: deque[float] = deque(maxlen=KEPT)
        self.longest_s = 0.0
        self._held = False

    def enter(self) -> None:
        if self._held:  # the last step raised before it could leave
            return
        start_s = time.perf_counter()
        self._take(TURNSTILE)
        self._take(PARAMETERS)
        self._held = True
        waited_s = time.perf_counter() - start_s
        self.waits_s.append(waited_s)
        self.longest_s = max(self.longest_s, waited_s)
        self._turn.__enter__()

    def leave(self) -> None:
        """Let go of whatever is held, also after a step that was broken off."""
        if self._held:
            self._turn.__exit__(None, None, None)
        self._held = False
        self._drop(PARAMETERS)
        self._drop(TURNSTILE)


class ChunkGate(Gate):
    """The communicator's side: a context manager around the work on one chunk. It may be nested,
    so a process has one only: a second would wait for the turnstile while holding the rest."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._depth = 0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._take(TURNSTILE)
            self._drop(TURNSTILE)
            self._take(PARAMETERS)
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._drop(PARAMETERS)
