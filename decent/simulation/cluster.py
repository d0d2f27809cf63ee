"""A cluster of workers in virtual time: an event queue that drives the runtime's own `Worker`s.

An event is a local step, a packet's arrival, a worker's wake-up, or a fault. Nothing depends on the
wall clock; equal seeds give equal runs to the bit.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decent.errors import DecentError
from decent.schedule import stream
from decent.simulation.network import Network
from decent.worker import Packet, Reduction, Span, Worker, line
from decent.worker import messages as m
from decent.worker.slots import Array
from decent.worker.snapshot import Tree

Durations = NDArray[np.float64]

WAIT_S = 0.1
TICK_S = 1e-9
"""The least a worker sleeps: virtual time moves on whatever rounding does."""

ALL = 2**62
"""lines of a ledger that stay"""


class Learner(Protocol):
    """Takes one local gradient step on a worker's live vector, in place."""

    def __call__(self, worker: Worker) -> object: ...


@dataclass(frozen=True)
class Pace:
    """How long a worker's steps take: mean seconds, and the spread of their logarithm; or Poisson
    times, as the papers have it."""

    step_s: float = 1.0
    jitter: float = 0.0
    poisson: bool = False

    def draw(self, rng: np.random.Generator, count: int) -> Durations:
        """The next `count` durations; drawing them one by one gives the same."""
        if self.poisson:
            return rng.exponential(self.step_s, count)
        spread = self.jitter * rng.normal(size=count) - self.jitter**2 / 2
        return self.step_s * np.exp(spread)

    def durations(self, rng: np.random.Generator) -> Iterator[float]:
        while True:
            yield float(self.draw(rng, 1)[0])


@dataclass(frozen=True)
class Fault:
    """Something that happens to the cluster at `at_s`; see `decent.testing` for ready ones."""

    at_s: float
    what: str
    act: Callable[[Cluster], None]


class Cluster:
    """Workers, a network between them, and virtual time in seconds.

    `steps[i]` local steps of worker i are taken by `learner`; then it takes part in the merge with
    weight `weights[i]`. Without a learner there are contacts but no gradients. `make(me, epoch,
    lines)` is how a worker that restarts begins anew, or, if its books go on after so many lines,
    to be restored.
    """

    def __init__(
        self,
        workers: Iterable[Worker],
        network: Network,
        *,
        learner: Learner | None = None,
        paces: list[Pace] | None = None,
        weights: list[float] | None = None,
        faults: Iterable[Fault] = (),
        merge: bool = True,
        seed: int = 0,
        make: Callable[[int, int, int | None], Worker] | None = None,
    ) -> None:
        self.workers = {worker.me: worker for worker in workers}
        self._make = make
        self.network, self.learner, self.merging = network, learner, merge
        self.weights = weights or [1.0] * len(self.workers)
        self.now_s = 0.0
        self.down: dict[int, str] = {}  # worker → what ended it
        self.died_s: dict[int, float] = {}
        self.paused: set[int] = set()
        self.slowdown: dict[int, float] = {}  # worker → factor of its steps' durations
        self.merges: dict[int, Reduction] = {}
        self.saved: dict[int, list[Tree]] = {me: [] for me in self.workers}  # checkpoints
        self._life = 0  # how often all have been killed
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._wake_s = dict.fromkeys(self.workers, math.inf)
        self._held: dict[int, list[Callable[[], None]]] = {}
        paces = paces or [Pace()] * len(self.workers)
        self._durations = {me: paces[me].durations(stream(seed, "pace", me)) for me in self.workers}
        for fault in faults:
            self.at(fault.at_s, lambda fault=fault: fault.act(self))  # type: ignore[misc]
        for worker in self.workers.values():
            self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        worker.start(self.now_s)
        self._after(worker)
        self._next_step(worker)

    def _wait(self, worker: Worker) -> None:
        """Until a worker that comes back has its parameters."""
        self.at(self.now_s + WAIT_S, lambda: self._run(worker, self._next_step))

    def at(self, time_s: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (time_s, next(self._order), act))

    def run(
        self, until_s: float = math.inf, until: Callable[[Cluster], bool] | None = None
    ) -> Cluster:
        """Run to `until_s`, or until `until(cluster)`, or until everyone is merged."""
        stop = until or Cluster.finished
        while self._queue and self._queue[0][0] <= until_s and not stop(self):
            self.now_s, _, act = heapq.heappop(self._queue)
            act()
        if until_s < math.inf and not stop(self):
            self.now_s = max(self.now_s, until_s)
        return self

    def finished(self) -> bool:
        """Everyone alive holds the merge and knows that everyone does."""
        return self.merging and all(
            me in self.merges and self.merges[me].closed for me in self.alive
        )

    @property
    def alive(self) -> list[int]:
        return [me for me in self.workers if me not in self.down]

    def kill(self, me: int, why: str = "killed") -> None:
        self.down.setdefault(me, why)
        self.died_s.setdefault(me, self.now_s)

    def restart(self, me: int) -> None:
        """A new process in the place of the worker's, which takes nothing over."""
        self._replace(me, self.workers[me].context.epoch + 1)
        self._begin(self.workers[me])

    def resume_all(self) -> dict[int, Span]:
        """Every process is killed, now, and what is on its way lost; all go on from the newest line
        of checkpoints, which is returned. Where that lacks one, nothing is done."""
        found = line({me: [_span(tree) for tree in own] for me, own in self.saved.items()})
        if len(found) < len(self.workers):
            return {}
        self._life += 1
        for me, span in found.items():
            self.saved[me] = [tree for tree in self.saved[me] if tree["cut"] <= span.cut]
            tree = self.saved[me][-1]
            self._replace(me, tree["epoch"], tree["ledger"]["lines"] if tree["ledger"] else 0)
            self.workers[me].restore(tree, self.now_s)
        for worker in self.workers.values():
            self._begin(worker)
        return found

    def rejoin(self, me: int) -> None:
        """A new process takes the worker's place, from its latest checkpoint, or from what a
        neighbour shows it."""
        self._replace(me, self.workers[me].context.epoch + 1, ALL)
        tree = self.saved[me][-1] if self.saved[me] else None
        self.workers[me].rejoin(tree, self.now_s)
        self._begin(self.workers[me])

    def _replace(self, me: int, epoch: int, lines: int | None = None) -> None:
        """Another process in the place of the worker's, not yet begun."""
        assert self._make is not None
        for of_the_old in (self.down, self.died_s, self.merges, self._held):
            of_the_old.pop(me, None)
        self.paused.discard(me)
        self.workers[me] = self._make(me, epoch, lines)
        self._wake_s[me] = math.inf

    def pause(self, me: int) -> None:
        self.paused.add(me)

    def resume(self, me: int) -> None:
        self.paused.discard(me)
        for act in self._held.pop(me, []):
            act()

    def total(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Σ over the living of their plain state at the common time now, in double precision."""
        for me in self.alive:
            self.workers[me].refresh(self.now_s)
        states = [self.workers[me].slots.plain().astype(float) for me in self.alive]
        return np.asarray(np.sum(states, axis=0))

    def close(self) -> None:
        """The end, as it is: those who live close their books. The dead have left theirs open."""
        for me in self.alive:
            self.workers[me].close(self.now_s)

    def _next_step(self, worker: Worker) -> None:
        planned = worker.steps or 0
        if worker.adoption is not None:
            self._wait(worker)
        elif self.learner is not None and worker.context.clock.steps < planned:
            slowdown = self.slowdown.get(worker.me, 1.0)
            duration_s = slowdown * next(self._durations[worker.me])
            self.at(self.now_s + duration_s, lambda: self._run(worker, self._step))
        elif planned and worker.context.clock.steps >= planned and self.merging:
            vector, weight = worker.slots.array[0], self.weights[worker.me]
            self.merges[worker.me] = worker.reduce(0, vector, weight, self.now_s)

    def _step(self, worker: Worker) -> None:
        assert self.learner is not None
        worker.refresh(self.now_s)
        with worker.turn():
            self.learner(worker)
        worker.advance(worker.context.clock.steps + 1, self.now_s)
        self._next_step(worker)

    def _run(self, worker: Worker, act: Callable[[Worker], None]) -> None:
        """Let a worker act, if it lives and is the latest; what befalls a paused one waits."""
        me = worker.me
        if me in self.down or self.workers[me] is not worker:
            return
        if me in self.paused:
            self._held.setdefault(me, []).append(lambda: self._run(worker, act))
            return
        try:
            act(worker)
            if worker.context.fatal is not None:
                raise worker.context.fatal
        except DecentError as error:
            worker.context.trace("fault", self.now_s, what=str(error))
            self.kill(me, str(error))
        self._after(worker)

    def _after(self, worker: Worker) -> None:
        """Take a checkpoint if one is due, send what the worker has to say, and wake it when it
        next has something to do."""
        if worker.cut_step <= worker.context.clock.steps:
            self.saved[worker.me].append(worker.checkpoint(self.now_s))
            worker.poll(self.now_s)
        for packet in worker.outbox:
            for time_s in self.network.arrivals(packet, self.now_s):
                copy = self.network.carried(packet)
                self.at(time_s, partial(self._deliver, copy, self._life))
        worker.outbox.clear()
        wake_s = max(worker.wake_s(self.now_s), self.now_s + TICK_S)
        if wake_s < self._wake_s[worker.me]:
            self._wake_s[worker.me] = wake_s
            self.at(wake_s, lambda: self._wake(worker, wake_s))

    def _wake(self, worker: Worker, wake_s: float) -> None:
        if self._wake_s[worker.me] == wake_s and self.workers[worker.me] is worker:
            self._wake_s[worker.me] = math.inf
            self._run(worker, lambda worker: worker.poll(self.now_s))

    def _deliver(self, packet: Packet, life: int) -> None:
        to = packet.message.dst
        if isinstance(packet.message, m.Look):
            packet = packet._replace(payload=self._seen(packet.message))
        if to in self.workers and life == self._life:
            self._run(self.workers[to], lambda worker: worker.receive(packet, self.now_s))

    def _seen(self, look: m.Look) -> Array | None:
        """What stands at the worker that lets another look: as it is now, not as it was."""
        slots = self.workers[look.src].slots
        live = look.src not in self.down and look.chunk < slots.chunks
        return slots.array[0, slots.span(look.chunk)].view(np.uint8) if live else None


def _span(tree: Tree) -> Span:
    return Span(tree["since"], tree["cut"])
