"""What an edge's faults do to the messages that cross it. No sockets, no clock.

Messages go in by `take` and come out by `due`, in order on each way as long as no fault reorders
them. What waits is bounded: beyond `MOST` messages the edge drops what comes, as a full queue does.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from decent.chaos.faults import Fault, Kind
from decent.schedule import stream

MOST = 512
HELD_S = 0.2
"""how long a message is held back, at most, for others to overtake it"""
Frames = list[bytes]
Way = TypeVar("Way", bound=Hashable)


@dataclass
class _Active:
    fault: Fault
    until_s: float
    rng: np.random.Generator


class Link(Generic[Way]):
    """One edge. A way is whatever tells one direction of a connection from another."""

    def __init__(self, seed: int) -> None:
        self.hits: Counter[str] = Counter()  # kind → messages that it has met
        self.passed = self.dropped = 0
        self._seed, self._number = seed, 0
        self._active: dict[int, _Active] = {}
        self._waiting: list[tuple[float, int, Way, Frames]] = []  # due at, number, …
        self._last_s: dict[Way, float] = {}  # way → when its last message is due
        self._sent_s: dict[Way, float] = {}  # … and has been sent, where it is slow

    def start(self, fault: Fault, now_s: float) -> None:
        rng = stream(self._seed, "chaos", "link", fault.index)
        self._active[fault.index] = _Active(fault, now_s + fault.span_s, rng)

    def take(self, way: Way, frames: Frames, now_s: float) -> None:
        """A message has come."""
        active = [each for each in self._active.values() if now_s < each.until_s]
        self._active = {each.fault.index: each for each in active}
        self.passed += 1
        if self._met("partition"):
            return
        for each in self._chosen("corrupt"):
            frames = self._corrupted(frames, each)
        copies = 1 + sum(1 for _ in self._chosen("duplicate"))
        for _ in range(copies):
            self._hold(way, frames, now_s)

    def due(self, now_s: float) -> Iterator[tuple[Way, Frames]]:
        """What is to go on by now."""
        while self._waiting and self._waiting[0][0] <= now_s:
            _, _, way, frames = heapq.heappop(self._waiting)
            yield way, frames

    def next_s(self) -> float:
        return self._waiting[0][0] if self._waiting else math.inf

    def _of(self, kind: Kind) -> Iterator[_Active]:
        return (each for each in self._active.values() if each.fault.kind == kind)

    def _met(self, kind: Kind) -> bool:
        met = any(self._of(kind))
        self.hits[kind] += met
        return met

    def _chosen(self, kind: Kind) -> Iterator[_Active]:
        """The faults of this kind that choose this message."""
        for each in self._of(kind):
            if each.rng.random() < each.fault.amount:
                self.hits[kind] += 1
                yield each

    def _hold(self, way: Way, frames: Frames, now_s: float) -> None:
        """Until it is due: at once, in most cases."""
        if len(self._waiting) >= MOST:
            self.dropped += 1
            return
        held_s = sum(float(each.rng.random()) * HELD_S for each in self._chosen("reorder"))
        due_s = max(self._through_s(way, frames, now_s), self._last_s.get(way, now_s))
        if not held_s:
            self._last_s[way] = due_s
        self._number += 1
        heapq.heappush(self._waiting, (due_s + held_s, self._number, way, frames))

    def _through_s(self, way: Way, frames: Frames, now_s: float) -> float:
        """When it comes through the faults that take time."""
        due_s = now_s
        for each in self._of("slow"):
            self.hits["slow"] += 1
            begin_s = max(now_s, self._sent_s.get(way, now_s))
            sent_s = begin_s + sum(map(len, frames)) / each.fault.amount
            self._sent_s[way] = min(sent_s, each.until_s)
            due_s = max(due_s, self._sent_s[way])
        for each in self._of("delay"):
            self.hits["delay"] += 1
            due_s += each.fault.amount * (0.5 + float(each.rng.random()))
        return due_s

    @staticmethod
    def _corrupted(frames: Frames, active: _Active) -> Frames:
        """With one to four bits flipped in the header, in the payload or in either."""
        rng, last = active.rng, len(frames) - 1
        which = {"header": 0, "payload": last}.get(active.fault.target, int(rng.integers(last + 1)))
        damaged = bytearray(frames[which])
        for bit in rng.integers(8 * len(damaged), size=int(rng.integers(1, 5))) if damaged else ():
            damaged[int(bit) // 8] ^= 1 << int(bit) % 8
        return [bytes(damaged) if k == which else frame for k, frame in enumerate(frames)]
