"""The events of an ideal run: who takes a gradient or meets whom, and when. No state is involved.

An event is a row of three columns: its time (units: expected local steps), its worker, and the
peer of an exchange or −1 for a gradient. `Scheduled` draws what the very schedule, seed and pace of
a run give, worker by worker; `Superposed` draws many independent copies of a Poisson run at once,
as one process at the total rate; `Recorded` has them from elsewhere. With R replicas, replica r of
worker i is worker r·n + i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from decent.errors import ScheduleError
from decent.schedule import Agenda, Schedule, View, as_schedule, stream
from decent.simulation.cluster import Pace
from decent.topology import Topology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Progress = Callable[[float], float | None]
GRADIENT = -1
BLOCK = 64  # steps of a worker drawn at once


class Events(NamedTuple):
    """Columns of length E, in an order in which every worker's own events follow in time."""

    time: Floats
    worker: Ints
    peer: Ints

    def then(self, other: Events) -> Events:
        return Events(
            np.concatenate([self.time, other.time]),
            np.concatenate([self.worker, other.worker]),
            np.concatenate([self.peer, other.peer]),
        )

    def of(self, chosen: NDArray[np.bool_] | Ints) -> Events:
        return Events(self.time[chosen], self.worker[chosen], self.peer[chosen])

    @classmethod
    def none(cls) -> Events:
        return cls(np.empty(0), np.empty(0, np.int64), np.empty(0, np.int64))


class Source(Protocol):
    """Events on demand. `rate` is how many a worker is part of per unit of time, about."""

    workers: int
    rate: float

    def until(self, time: float) -> Events:
        """Those since the last call and before `time`."""
        ...

    @property
    def end(self) -> float | None:
        """From when on there are no events, once that is known."""
        ...


class Scheduled:
    """The events of workers with a schedule: worker i of replica r draws what a run of seed
    `seed + r` draws. A worker stops after `steps` steps; with a Poisson pace, at time `steps`."""

    def __init__(
        self,
        topology: Topology,
        schedule: Schedule,
        *,
        seed: int = 0,
        steps: int | None = None,
        paces: list[Pace] | None = None,
        gradients: bool = True,
        replicas: int = 1,
    ) -> None:
        n, schedule = topology.n, as_schedule(schedule)
        self.workers = n * replicas
        self.rate = gradients + topology.models_per_worker()
        paces = paces or [Pace(poisson=True)] * n
        timed = steps is not None and (not gradients or paces[0].poisson)
        self._horizon = float(steps) if timed and steps is not None else np.inf
        self._steps = [
            _Steps(paces[i], stream(seed + r, "pace", i), None if timed else steps)
            for r in range(replicas if gradients else 0)
            for i in range(n)
        ]
        self._contacts = [
            _contacts(
                schedule, View.of(topology, i, seed + r), partial(self._progress, r * n + i, steps)
            )
            for r in range(replicas)
            for i in range(n)
        ]
        self._first = np.repeat(np.arange(replicas) * n, n)  # of each worker's replica
        self._now = 0.0

    @property
    def end(self) -> float | None:
        if self._horizon < np.inf or not self._steps:
            return self._horizon
        ends = [each.end for each in self._steps]
        if any(end is None for end in ends):
            return None
        return float(np.nextafter(max(end for end in ends if end), np.inf))

    def until(self, time: float) -> Events:
        time = min(time, self._horizon)
        steps = [each.until(time) for each in self._steps]
        time = min(time, self.end or time)
        meetings = [each.until(time) for each in self._contacts]
        taken = _gathered([(times, None) for times in steps])
        met = _gathered(meetings)
        peers = met.peer + self._first[met.worker]
        events = taken.then(met._replace(peer=peers))
        return events.of(np.argsort(events.time, kind="stable"))

    def _progress(self, worker: int, steps: int | None, time: float) -> float | None:
        """The share of a worker's steps that is done at `time`, for schedules that look at it."""
        if steps is None:
            return None
        done = self._steps[worker].done(time) if self._steps else int(time)
        return min(1.0, done / steps)


def _gathered(parts: Sequence[tuple[Floats, Ints | None]]) -> Events:
    """The workers' events one after the other; gradients where no peers are given."""
    if not parts:
        return Events.none()
    counts = [len(times) for times, _ in parts]
    times = np.concatenate([times for times, _ in parts])
    peers = [np.full(len(t), GRADIENT) if p is None else p for t, p in parts]
    return Events(times, np.repeat(np.arange(len(parts)), counts), np.concatenate(peers))


class _Steps:
    """When one worker takes its steps; at most `most` of them."""

    def __init__(self, pace: Pace, rng: np.random.Generator, most: int | None) -> None:
        self._pace, self._rng, self._left = pace, rng, most
        self._times = np.zeros(1)  # all drawn, after a first 0
        self._given = 1
        self.end: float | None = None

    def until(self, time: float) -> Floats:
        while self._times[-1] < time and self._left != 0:
            count = BLOCK if self._left is None else min(BLOCK, self._left)
            fresh = self._times[-1] + np.cumsum(self._pace.draw(self._rng, count))
            self._times = np.concatenate([self._times, fresh])
            self._left = None if self._left is None else self._left - count
        if self._left == 0:
            self.end = float(self._times[-1])
        start = self._given
        self._given = max(start, int(np.searchsorted(self._times, time)))
        return self._times[start : self._given]

    def done(self, time: float) -> int:
        return int(np.searchsorted(self._times, time, "right")) - 1


class _Blocks:
    """Contacts of a schedule that gives them in blocks."""

    def __init__(self, blocks: Iterator[tuple[Floats, Ints]]) -> None:
        self._blocks = blocks
        self._times, self._peers = np.empty(0), np.empty(0, np.int64)

    def until(self, time: float) -> tuple[Floats, Ints]:
        while not len(self._times) or self._times[-1] < time:
            block = next(self._blocks, None)
            if block is None:
                break
            self._times = np.concatenate([self._times, block[0]])
            self._peers = np.concatenate([self._peers, block[1]])
        cut = int(np.searchsorted(self._times, time))
        given = self._times[:cut], self._peers[:cut]
        self._times, self._peers = self._times[cut:], self._peers[cut:]
        return given


class _OneByOne:
    """Contacts of any schedule, driven as a worker drives it."""

    def __init__(self, agenda: Agenda, progress: Progress) -> None:
        self._agenda, self._progress = agenda, progress

    def until(self, time: float) -> tuple[Floats, Ints]:
        times, peers = list[float](), list[int]()
        while (now := max(0.0, self._agenda.next_time)) < time:
            for peer in self._agenda.due(now, self._progress(now)):
                times.append(now)
                peers.append(peer)
        return np.array(times), np.array(peers, dtype=np.int64)


def _contacts(schedule: Schedule, view: View, progress: Progress) -> _Blocks | _OneByOne:
    blocks = getattr(schedule, "blocks", None)
    if blocks is not None:
        return _Blocks(blocks(view))
    return _OneByOne(Agenda(schedule, view), progress)


class Superposed:
    """Poisson gradients at rate 1 per worker and Poisson exchanges at the edges' rates, in many
    independent replicas: the superposition of all is drawn as one process for each replica."""

    def __init__(
        self, topology: Topology, replicas: int, seed: int = 0, gradients: bool = True
    ) -> None:
        self._n, self._replicas = topology.n, replicas
        self.workers, self.end = topology.n * replicas, None
        self.rate = gradients + topology.models_per_worker()
        self._nodes = topology.n if gradients else 0
        self._rng, self._now = stream(seed, "superposed"), 0.0
        self._connect(np.array(topology.edges), np.array(topology.rates))

    def _connect(self, edges: NDArray[Any], rates: Floats) -> None:
        """From now on, exchanges happen on these edges [E, 2] at these rates [E]."""
        self._edges = edges.astype(np.int64).reshape(-1, 2)
        weights = np.concatenate([np.ones(self._nodes), rates])
        self._total = float(weights.sum())
        self._shares = np.cumsum(weights) / max(self._total, 1e-300)

    def until(self, time: float) -> Events:
        """Given their number, the times of a Poisson process are those of uniform draws: gaps are
        exponential, and divided by their sum."""
        span = max(0.0, time - self._now)
        counts = self._rng.poisson(self._total * span, self._replicas)
        ends = np.cumsum(counts + 1)
        reached = np.cumsum(self._rng.exponential(size=int(ends[-1])))
        base = np.concatenate([[0.0], reached[ends[:-1] - 1]])
        length = reached[ends - 1] - base
        replica = np.repeat(np.arange(self._replicas), counts + 1)
        times = self._now + span * (reached - base[replica]) / length[replica]
        inner = np.ones(len(times), dtype=bool)
        inner[ends - 1] = False
        times, replica = times[inner], replica[inner]
        self._now = max(self._now, time)
        return Events(times, *self._ends(replica))

    def _ends(self, replica: Ints) -> tuple[Ints, Ints]:
        kind = np.searchsorted(self._shares, self._rng.random(len(replica)), "right")
        kind = np.minimum(kind, len(self._shares) - 1)
        gradient = kind < self._nodes
        edge = self._edges[np.where(gradient, 0, kind - self._nodes)] if len(self._edges) else None
        worker = kind if edge is None else np.where(gradient, kind, edge[:, 0])
        peer = np.full_like(kind, GRADIENT)
        base = self._n * replica
        if edge is not None:
            peer = np.where(gradient, GRADIENT, edge[:, 1] + base)
        return worker + base, peer


class Recorded:
    """Events given in full: columns of time, worker and peer (−1: a gradient), in order of time.

    Raises ScheduleError where they are not events of `workers` workers in that order.
    """

    def __init__(self, workers: int, time: Floats, worker: Ints, peer: Ints) -> None:
        self.workers = workers
        columns = [_numbers(each) for each in (time, worker, peer)]
        self._check(*columns)
        self._events = Events(columns[0], *(each.astype(np.int64) for each in columns[1:]))
        last = float(self._events.time[-1]) if len(self._events.time) else 0.0
        self.end = float(np.nextafter(last, np.inf))
        self.rate = 2 * len(self._events.time) / (self.end * workers)
        self._given = 0

    def until(self, time: float) -> Events:
        start = self._given
        self._given = max(start, int(np.searchsorted(self._events.time, time)))
        return self._events.of(np.arange(start, self._given))

    def _check(self, time: Floats, worker: Floats, peer: Floats) -> None:
        if not (time.shape == worker.shape == peer.shape and time.ndim == 1):
            raise ScheduleError(
                f"columns of shapes {time.shape}, {worker.shape}, {peer.shape}",
                "one time, worker and peer for each event",
            )
        wrong = ~np.isfinite(time) | (np.diff(time, prepend=0.0) < 0)
        wrong |= (worker < 0) | (worker >= self.workers) | (peer < GRADIENT)
        wrong |= (peer >= self.workers) | (peer == worker)
        wrong |= (worker != np.rint(worker)) | (peer != np.rint(peer))
        if wrong.any():
            k = int(np.argmax(wrong))
            raise ScheduleError(
                f"event {k}: time {time[k]}, worker {worker[k]:.9g}, peer {peer[k]:.9g}",
                f"times that never decrease, two different workers of {self.workers}, or peer −1 "
                "for a gradient",
            )


def _numbers(column: NDArray[Any]) -> Floats:
    try:
        return np.asarray(column, np.float64)
    except (TypeError, ValueError) as error:
        raise ScheduleError(f"a column of events: {error}", "numbers") from None
