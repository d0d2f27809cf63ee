"""Events into batches: those of one batch touch disjoint workers, so they commute and run as one.

An event waits for nothing but its own workers' earlier events. In each round every event that is
next for all of its workers is taken; the rounds are the batches, and there are as many as the
longest chain of events is long. Where gradients are dear (`patient`), they wait until no exchange
can go first, so that more of them are taken at once. Every order that keeps each worker's own gives
the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from decent.simulation.ideal.events import Events, Floats, Ints

TAIL = 0.25
"""Batches that are below this share of the largest at the end of a window wait for the next one."""


class Plan(NamedTuple):
    """A window's events in batches. Rows are visits: one for a gradient, two for an exchange. Batch
    b is `sizes[b]` = (gradients g, exchanges e): g rows of its gradients, e rows of the first ends
    and e rows of the second ends."""

    worker: Ints
    elapsed: Floats  # since that worker's event before
    time: Floats
    side: Ints  # 0: a gradient; 1, 2: first and second end of an exchange
    sizes: list[tuple[int, int]]


def plan(
    events: Events, last: Floats, *, patient: bool = False, whole: bool = True
) -> tuple[Plan, Events]:
    """The batches of `events`, and the events left for later (none if `whole`). `last` [workers],
    the time of each worker's last event, is brought up to date."""
    visits = _Visits(events, len(last))
    batch = visits.batches(patient)
    sizes = _sizes(events, batch)
    if not whole:
        sizes = sizes[: _last_large(sizes)]
    rows = sum(g + 2 * e for g, e in sizes)
    own = batch[visits.event]
    order = np.argsort((3 * own + visits.side) * len(batch) + visits.event)[:rows]
    worker, event = visits.worker[order], visits.event[order]
    elapsed, time = visits.elapsed(events.time, last)[order], events.time[event]
    last[worker] = time  # batches are in each worker's own order: the last one stays
    return Plan(worker, elapsed, time, visits.side[order], sizes), events.of(batch >= len(sizes))


class _Visits:
    """Events as seen by their workers: a queue for each, one after the other."""

    def __init__(self, events: Events, workers: int) -> None:
        self.events = count = len(events.time)
        pairs = np.flatnonzero(events.peer >= 0)
        worker = np.concatenate([events.worker, events.peer[pairs]])
        event = np.concatenate([np.arange(count), pairs])
        order = np.argsort(worker * count + event)  # keys differ: faster than sorting twice
        self.worker, self.event = worker[order], event[order]
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        self.mate = self._mates(place, count, pairs)[order]
        self.side = np.where(events.peer[self.event] < 0, 0, 1 + (order >= count))
        self.start = np.searchsorted(self.worker, np.arange(workers + 1))

    def _mates(self, place: Ints, count: int, pairs: Ints) -> Ints:
        """For each visit, the visit of the same event's other end; a gradient's is its own."""
        mates = place.copy()
        mates[pairs], mates[count:] = place[count:], place[pairs]
        return mates

    def elapsed(self, time: Floats, last: Floats) -> Floats:
        """Since each visit's worker was visited before."""
        times = time[self.event]
        before = np.roll(times, 1)
        first = self.start[:-1][self.start[:-1] < self.start[1:]]
        before[first] = last[self.worker[first]]
        passed: Floats = times - before
        return passed

    def batches(self, patient: bool) -> Ints:
        """Of each event, its round."""
        batch = np.zeros(self.events, dtype=np.int64)
        head, end = self.start[:-1].copy(), self.start[1:]
        waiting = np.flatnonzero(head < end)
        rounds = 0
        while len(waiting):
            visit = head[waiting]
            mate = self.mate[visit]
            ready = head[self.worker[mate]] == mate
            if patient:
                meets = ready & (mate != visit)
                ready = meets if meets.any() else ready
            batch[self.event[visit[ready]]] = rounds
            moved = waiting[ready]
            head[moved] += 1
            waiting = waiting[head[waiting] < end[waiting]]
            rounds += 1
        return batch


def _sizes(events: Events, batch: Ints) -> list[tuple[int, int]]:
    """Gradients and exchanges of each batch."""
    kinds = 2 * batch + (events.peer >= 0)
    counts = np.bincount(kinds, minlength=2 * (int(batch.max(initial=-1)) + 1))
    return [(int(g), int(e)) for g, e in counts.reshape(-1, 2)]


def _last_large(sizes: list[tuple[int, int]]) -> int:
    """How many batches there are up to the last large one."""
    events = np.array([g + e for g, e in sizes])
    large = np.flatnonzero(events >= TAIL * events.max(initial=0))
    return int(large[-1]) + 1 if len(large) else 0


def split(plan: Plan, most: int) -> Iterator[tuple[slice, list[tuple[int, int]]]]:
    """Consecutive batches of at most `most` rows together, or one batch alone."""
    start, rows, group = 0, 0, list[tuple[int, int]]()
    for size in plan.sizes:
        extra = size[0] + 2 * size[1]
        if group and rows + extra > most:
            yield slice(start, start + rows), group
            start, rows, group = start + rows, 0, []
        group.append(size)
        rows += extra
    if group:
        yield slice(start, start + rows), group
