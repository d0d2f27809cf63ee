"""A worker's outgoing payloads, held to a rate: a token bucket, and a line of those who wait.

A payload may leave while the bucket is not in debt, and takes its bytes out of it, if need be
beyond what is there; so over any t seconds at most `rate`·t + `burst` + one payload leaves. Where
it is in debt, payloads that are ready stand in line, and so does an exchange that would send more
chunks: these are not made before its turn. Nobody else ever waits: the change that a reply tells of
is made at once, and the peer takes the reply's delay for that of the link.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from decent.worker import messages as m

BURST_S = 0.1
"""how much of the rate may be saved up"""


class Budget:
    """Of `rate` bytes of payload a second; inf: no limit."""

    def __init__(self, rate: float = math.inf) -> None:
        self.rate, self.burst = rate, BURST_S * rate
        self.line: deque[m.Packet | int] = deque()  # payloads, and peers to send more to
        self._level, self._at_s = self.burst, 0.0

    @property
    def open(self) -> bool:
        return self._level >= 0

    def refill(self, now_s: float) -> None:
        """At the beginning of every event."""
        if self.rate < math.inf:
            self._level = min(self.burst, self._level + self.rate * max(0.0, now_s - self._at_s))
            self._at_s = max(self._at_s, now_s)

    def spend(self, nbytes: int) -> None:
        self._level -= nbytes

    def wait(self, who: m.Packet | int) -> None:
        """Stand in line; what stands there already need not twice."""
        if _mark(who) not in map(_mark, self.line):
            self.line.append(who)

    def next_s(self) -> float:
        """When the first in line has its turn."""
        return self._at_s + max(0.0, -self._level / self.rate) if self.line else math.inf

    @property
    def held(self) -> int:
        """Payloads in line."""
        return sum(isinstance(who, m.Packet) for who in self.line)


def _mark(who: m.Packet | int) -> Any:
    """The same for two payloads that say the same."""
    if isinstance(who, int):
        return who
    message = who.message
    of = (
        getattr(message, key, None)
        for key in ("dst", "to_epoch", "round", "dead", "of", "seq", "chunk")
    )
    return type(message), *of
