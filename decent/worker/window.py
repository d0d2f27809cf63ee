"""How many chunks to keep in flight to one peer: enough to fill the link, and not much more.

A chunk that was sent as the w-th in flight and came back after R tells that the link carries w/R
chunks a second (Little's law). With R₀, what a chunk takes that waits for no other,

    in flight to fill it     w·R₀/R            (R₀ counts a chunk's own way through the link, twice)
    window                   GAIN · w·R₀/R + MORE

so an empty link's window grows by a fifth a round trip, and a full one's queue is a fifth of what
is on the way: signs of life that share the link wait no longer than that.

R₀ is the least seen in this exchange and the one before, since ways change, and SPREAD mean
deviations more: where the link's own delay varies, its least is no measure. And the window shrinks
more slowly than it grows, as much else than a queue can hold up a chunk now and then: a busy peer,
a lost packet. Seconds, chunks.
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
SPREAD = 2.5
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

    def full(self, flying: int, limits: Limits) -> bool:
        """Whether so many in flight are all that may be: else it is not the window that holds the
        link back, and what they tell is R₀ alone."""
        return flying >= self._whole(limits)

    def land(
        self, ahead: int, full: bool, took_s: float, deviation_s: float, limits: Limits
    ) -> None:
        """A chunk is back that was sent as the `ahead`-th in flight, into a window that was `full`
        with it or was not. `deviation_s` is the mean one of what chunks take."""
        took_s = max(0.0, took_s)
        self._least_s = min(self._least_s, took_s)
        if not full:
            return
        noise_s = max(0.0, deviation_s - took_s / ahead / 2)  # queues of our own come by the chunk
        empty_s = min(self._least_s, self._before_s) + SPREAD * noise_s
        share = empty_s / took_s if took_s > empty_s else 1.0
        change = (GAIN * ahead * share + MORE - self.size) / self.size
        self.size = _within(self.size + change * (1 if change > 0 else SHRINK), limits)

    def _whole(self, limits: Limits) -> int:
        return _within(round(self.size), limits)


class Whole(Window):
    """Through shared memory there is no link to fill: always as many as may be."""

    def open(self, landed: int, limits: Limits) -> int:
        return limits.window

    def land(
        self, ahead: int, full: bool, took_s: float, deviation_s: float, limits: Limits
    ) -> None:
        pass


def _within(size: Size, limits: Limits) -> Size:
    return min(limits.window, max(min(limits.window_least, limits.window), size))
