"""How many chunks to keep in flight to one peer: enough to fill the link, and not much more.

A chunk that was sent as the w-th in flight and came back after R tells that the link carries w/R
chunks a second (Little's law). With the least round trip R₀, of a chunk that waits for no other,

    in flight to fill it     w·R₀/R            (R₀ counts a chunk's own way through the link, twice)
    window                   GAIN · w·R₀/R + MORE

so an empty link's window grows by a fifth a round trip, and a full one's queue is a fifth of what
is on the way: signs of life that share the link wait no longer than that. It shrinks more slowly
than it grows, as much else than a queue can hold up a chunk now and then: a busy peer, a lost
packet. R₀ is the least of this exchange and the one before, since ways change. Seconds, chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from decent.worker.limits import Limits

Size = TypeVar("Size", int, float)
GAIN = 1.2
MORE = 0.3
SHRINK = 0.25
FIRST = 4.0


@dataclass
class Window:
    """Of one peer, over all exchanges started with it."""

    size: float = FIRST
    _least_s: float = math.inf  # R₀ in this exchange
    _before_s: float = math.inf  # … and in the one before

    def begin(self) -> None:
        """Another exchange."""
        if self._least_s < math.inf:
            self._before_s, self._least_s = self._least_s, math.inf

    def open(self, landed: int, limits: Limits) -> int:
        """How many may be in flight in an exchange of which so many have come back: half at first,
        since a whole window at once would queue up in front of the link."""
        whole = self._whole(limits)
        return min(whole, _within(whole // 2, limits) + landed)

    def land(self, ahead: int, took_s: float, limits: Limits) -> None:
        """A chunk is back that was the `ahead`-th in flight when it was sent. Where that was less
        than the window, it was not the window that held the link back, and R₀ alone is learnt."""
        self._least_s = min(self._least_s, took_s)
        if ahead < self._whole(limits):
            return
        share = min(self._least_s, self._before_s) / took_s if took_s > 0 else 1.0
        change = (GAIN * ahead * share + MORE - self.size) / self.size
        self.size = _within(self.size + change * (1 if change > 0 else SHRINK), limits)

    def _whole(self, limits: Limits) -> int:
        return _within(round(self.size), limits)


def _within(size: Size, limits: Limits) -> Size:
    return min(limits.window, max(min(limits.window_least, limits.window), size))
