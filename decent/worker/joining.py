"""How a worker that has died comes back: as another, with a new epoch, and never from nothing.

From a checkpoint of its former self, or else from what a neighbour shows of its parameters: a read
that changes nothing there, chunk by chunk, each as it is when it is asked for. The other slots then
begin as at the start of a run, and it goes on at the neighbour's step. Until then it exchanges
nothing.

What was open between its former self and its peers is settled by rule: they hear of a new epoch,
count what is in flight as not mixed and what they have answered as mixed, and begin with it anew
(`greetings`). Its ledger opens new books; of the old ones, never closed, nothing is expected.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from decent.errors import RuntimeFault
from decent.worker import messages as m
from decent.worker import snapshot
from decent.worker.peers import Peer
from decent.worker.slots import Array

if TYPE_CHECKING:
    from decent.worker.worker import Worker


def take_over(worker: Worker, tree: snapshot.Tree, now_s: float) -> None:
    """From a checkpoint of the worker's former self."""
    snapshot.restore(worker, snapshot.of_another_life(tree), now_s)
    begin(worker, now_s)


def begin(worker: Worker, now_s: float) -> None:
    """It has what it needs."""
    if worker.ledger is not None:
        worker.ledger.begin()
    steps = worker.context.clock.steps
    worker.context.trace("fault", now_s, what="this worker has restarted", steps=steps)


def check(worker: Worker) -> None:
    """Somebody has to be left: no second result beside that of all."""
    if worker.merging.newcomer and all(
        peer.state == "dead" and not peer.greeted for peer in worker.peers.values()
    ):
        me = worker.me
        worker.context.fail(RuntimeFault(f"worker {me} has come back, and met no neighbour"))


def show(worker: Worker, asked: m.Show, now_s: float) -> None:
    """Let a peer read a chunk of the parameters."""
    if worker.adoption is None and 0 <= asked.chunk < worker.slots.chunks:
        values = worker.slots.live(asked.chunk, worker.time(now_s))
        steps = worker.context.clock.steps
        worker.context.send(asked.src, m.Shown, values, chunk=asked.chunk, steps=steps)


class Adoption:
    """`worker` takes over the parameters of the first neighbour that it meets."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._vector: Array = np.empty_like(worker.slots.array[0])
        self._source: Peer | None = None
        self._missing: set[int] = set()
        self._ask_at_s = -math.inf
        self._end_s = math.inf

    def poll(self, now_s: float) -> None:
        """Ask, or ask again, for what comes next."""
        limits = self._worker.context.limits
        self._end_s = min(self._end_s, now_s + limits.start_s)
        if now_s >= self._end_s:
            self._worker.context.fail(RuntimeFault(
                f"worker {self._worker.me} has no checkpoint, and no neighbour that it could take "
                f"parameters from was met in {limits.start_s:g} s"
            ))  # fmt: skip
        if self._source is None or self._source.state != "alive":
            self._choose()
        if self._source is not None and now_s >= self._ask_at_s:
            self._ask_at_s = now_s + limits.retry_s
            for chunk in sorted(self._missing)[: limits.merge_window]:
                self._ask(chunk)

    def next_s(self) -> float:
        return min(self._ask_at_s if self._source else math.inf, self._end_s)

    def _choose(self) -> None:
        met = (peer for peer in self._worker.peers.values() if peer.met and peer.state == "alive")
        self._source = next(met, None)
        self._missing, self._ask_at_s = set(range(self._worker.slots.chunks)), -math.inf

    def _ask(self, chunk: int) -> None:
        assert self._source is not None
        self._worker.context.send(self._source.id, m.Show, chunk=chunk)

    def receive(self, shown: m.Shown, payload: Array, now_s: float) -> None:
        source, slots = self._source, self._worker.slots
        if source is None or shown.src != source.id or shown.chunk not in self._missing:
            return
        span = slots.span(shown.chunk)
        if payload.size != span.stop - span.start or not np.isfinite(payload).all():
            return
        self._vector[span] = payload
        self._missing.discard(shown.chunk)
        ahead = sorted(self._missing)[: self._worker.context.limits.merge_window]
        if ahead:
            self._ask(ahead[-1])
        else:
            self._end(shown.steps, now_s)

    def _end(self, steps: int, now_s: float) -> None:
        """Everything is here: go on at the neighbour's step."""
        worker = self._worker
        worker.context.clock.advance(steps, now_s)
        worker.cuts.step = steps
        time = worker.time(now_s)
        worker.slots.begin(worker.dynamics.initial(self._vector), time)
        worker.meter.start(time)
        for _ in worker.agenda.due(time, worker.progress):
            pass  # its former self's
        worker.adoption = None
        begin(worker, now_s)
