"""The ideal engine: exchanges take no time, and events that touch different workers run as one.

The state of all workers is one tensor [n, S, d], in the coordinates that `flow` chooses. A batch
gathers the rows of its workers, lets them drift to their events' times, applies gradients to some
and exchanges to others, and puts the rows back. What it does to a worker is what `System` says, to
rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.dynamics import System
from decent.errors import ModelError, RuntimeFault
from decent.learning.local import SGD, LocalOptimizer
from decent.learning.objective import Objective
from decent.simulation.ideal.batches import Plan, plan, split
from decent.simulation.ideal.events import Events, Floats, Source
from decent.simulation.ideal.flow import drift
from decent.simulation.ideal.jumps import Jumps

ROWS = 8192
"""Visits whose drifts are worked out together."""
WINDOW = (1 << 16, 1 << 20)
"""Visits planned at once, at least and at most; between them, 16 for each worker. Long vectors,
where planning is nothing beside the work, get 4 for each: progress is seen between windows. Short
ones are kept in the flow's own modes."""
LONG, SHORT = 1000, 64
TILE_BYTES = 24 << 20
"""Working set of a batch on a CPU: rows beyond it are worked on in turn, while in cache."""


class Engine:
    """n workers of `system`, in the papers' time: one unit is an expected local step.

    `points` [n, d] are the parameters to start from, or `state` [S, n, d] all slots as the papers
    have them. `objective` may serve fewer workers than the source has, if that is a multiple: then
    these are replicas. Without an `optimizer` a gradient is applied as the system says (k, γ).
    """

    def __init__(
        self,
        objective: Objective,
        system: System,
        source: Source,
        state: Tensor,
        *,
        optimizer: LocalOptimizer | None = None,
        device: torch.device | str = "cpu",
        patient: bool | None = None,
    ) -> None:
        slots, workers, size = state.shape
        if (slots, workers) != (len(system.slots), source.workers) or size != objective.size:
            raise ModelError(
                f"a state of shape {tuple(state.shape)}",
                f"({len(system.slots)}, {source.workers}, {objective.size}): slots, workers, d",
            )
        if workers % objective.n:
            raise ModelError(
                f"an objective of {objective.n} workers for {workers}",
                "as many as there are, or a whole number of replicas",
            )
        self.system, self.source = system, source
        self.device = torch.device(device)
        self.objective = objective.to(self.device)
        self.optimizer = optimizer or SGD(-float(system.kick[0]))
        self.time, self.last, self.finished = 0.0, np.zeros(workers), False
        self.tally = np.zeros((3, workers), dtype=np.int64)  # steps; exchanges started, answered
        self.losses = torch.full((workers,), torch.nan, device=self.device)
        self._drift = drift(system, short=size <= SHORT)
        self._patient = size >= LONG if patient is None else patient
        fitting = max(1, TILE_BYTES // (slots * size * state.element_size()))
        self._tile = (objective.tile or fitting) if self.device.type == "cpu" else workers
        self.left = Events.none()  # planned, but better done with what follows
        self._witness: list[Tensor] = []
        self.rows = _transformed(state.transpose(0, 1).to(self.device), self._drift.basis)
        if self.rows.data_ptr() == state.data_ptr():
            self.rows = self.rows.clone()  # what was given stays as it is
        self._room = self.rows[:0]
        self._jumps = Jumps(system, self._drift.basis, self.rows)

    @property
    def workers(self) -> int:
        return len(self.last)

    @property
    def gradients(self) -> int:
        """Taken so far, by all workers."""
        return int(self.tally[0].sum())

    @property
    def exchanges(self) -> int:
        return int(self.tally[1].sum())

    @property
    def window(self) -> float:
        """Units of time planned at once."""
        least, most = WINDOW
        visits = min(max(16 * self.workers, least), most)
        if self.objective.size >= LONG:
            visits = 4 * self.workers
        return max(visits / (self.workers * max(self.source.rate, 1e-9)), 1e-6)

    def run(self, until: float, watch: Callable[[], object] | None = None) -> None:
        """Carry out all events before `until`. `watch` is called between windows.

        Raises RuntimeFault at the first value that is not finite, with its worker and time.
        """
        while self.time < until and not self.finished:
            target = min(until, self.time + self.window)
            events = self.left.then(self.source.until(target))
            end = self.source.end
            self.finished = end is not None and target >= end
            self.time = target if end is None else min(target, end)
            whole = self.finished or self.time >= until
            made, self.left = plan(events, self.last, patient=self._patient, whole=whole)
            self._carry_out(made)
            if watch is not None:
                watch()

    def state(self, time: float | Floats | None = None) -> Tensor:
        """[S, n, d]: all slots as the papers have them, drifted to a common `time`, or to one for
        each worker; by default each worker as of its last event."""
        rows = self.rows.clone()
        if time is not None and not self._drift.still:
            rows = self._drift.apply(rows, self._coefficients(self._since(time)))
        return _transformed(rows, np.linalg.inv(self._drift.basis)).transpose(0, 1)

    def _since(self, time: float | Floats) -> Floats:
        """How long before `time` each worker had its last event."""
        passed: Floats = np.maximum(0.0, time - self.last)
        return passed

    def points(self, time: float | None = None) -> Tensor:
        """[n, d]: the parameters of all workers, drifted to a common `time` (none: now). May be a
        view of the state, which the next `run` changes."""
        parameters = np.linalg.inv(self._drift.basis)[:1]
        rows, elapsed = self.rows, self._since(self.time if time is None else time)
        if self._drift.still:
            return _transformed(rows, parameters)[:, 0]
        points = torch.empty_like(rows[:, 0])
        for part in torch.split(torch.arange(len(rows)), self._tile):
            moves = self._coefficients(elapsed[part.numpy()])
            moved = self._drift.apply(rows[part], moves)
            points[part] = _transformed(moved, parameters)[:, 0]
        return points

    def _coefficients(self, elapsed: Floats) -> list[Tensor]:
        return [each.to(self.device, self.rows.dtype) for each in self._drift.coefficients(elapsed)]

    def _carry_out(self, made: Plan) -> None:
        for span, sizes in split(made, ROWS):
            moves = [] if self._drift.still else self._coefficients(made.elapsed[span])
            self._run_group(made.worker[span], made.side[span] == 0, moves, sizes)
        self._check(made)
        self._count(made)

    def _run_group(
        self,
        worker: NDArray[np.int64],
        gradient: NDArray[np.bool_],
        moves: Sequence[Tensor],
        sizes: list[tuple[int, int]],
    ) -> None:
        """Consecutive batches; what can be looked up for all of them is, in one go."""
        workers = torch.from_numpy(worker).to(self.device)
        rows = [g + 2 * e for g, e in sizes]
        parts: Sequence[Tensor] = [workers] * len(sizes)
        if gradient.any():
            steps = torch.from_numpy(worker[gradient] % self.objective.n).to(self.device)
            parts = torch.split(self.objective.draw(steps), [g for g, _ in sizes])
        split_moves = [torch.split(coefficients, rows) for coefficients in moves]
        drifts = zip(*split_moves, strict=True) if moves else repeat(())
        batches = zip(sizes, torch.split(workers, rows), drifts, parts, strict=False)
        for size, batch, move, part in batches:
            if sum(size) <= self._tile:
                self._batch(batch, move, part, *size)
            else:
                self._in_tiles(batch, move, part, *size)

    def _in_tiles(
        self, workers: Tensor, drifts: Sequence[Tensor], drawn: Tensor, g: int, e: int
    ) -> None:
        """A batch's events commute, so they may as well run a cacheful at a time."""
        places = torch.arange(len(workers), device=self.device)
        for tile in torch.split(places[:g], self._tile):
            moves = [each[tile] for each in drifts]
            self._batch(workers[tile], moves, drawn[tile], len(tile), 0)
        for tile in torch.split(places[:e], self._tile):
            both = torch.cat([g + tile, g + e + tile])
            moves = [each[both] for each in drifts]
            self._batch(workers[both], moves, drawn, 0, len(tile))

    def _batch(
        self, workers: Tensor, drifts: Sequence[Tensor], drawn: Tensor, g: int, e: int
    ) -> None:
        """g gradients, then e exchanges: first ends, second ends."""
        rows = torch.index_select(self.rows, 0, workers, out=self._scratch(len(workers)))
        if drifts:
            rows = self._drift.apply(rows, drifts)
        if g:
            self._step(rows[:g], workers[:g], drawn)
        if e:
            self._jumps.exchange(rows[g:].view(2, e, *rows.shape[1:]))
        self.rows.index_copy_(0, workers, rows)

    def _scratch(self, count: int) -> Tensor:
        """Room for `count` rows, always the same: fresh memory costs more than what is done in
        it."""
        if len(self._room) < count:
            self._room = self.rows.new_empty(count, *self.rows.shape[1:])
        return self._room[:count]

    def _step(self, rows: Tensor, workers: Tensor, drawn: Tensor) -> None:
        jumps, points = self._jumps, self._jumps.probe(rows)
        local = workers if self.objective.n == self.workers else workers % self.objective.n
        gradients, losses = self.objective.gradients(points, local, drawn)
        if losses is not None:
            self.losses.index_copy_(0, workers, losses.to(self.losses.dtype))
        self._witness.append(gradients.sum(-1) if losses is None else losses)
        if jumps.residual is not None:
            gradients += jumps.residual(rows)
        if jumps.plain:
            self.optimizer.step(points, gradients, workers)
        else:
            jumps.displace(rows, self.optimizer.displacement(gradients, workers, points))

    def _count(self, made: Plan) -> None:
        found = np.bincount(self.workers * made.side + made.worker, minlength=self.tally.size)
        self.tally += found.reshape(self.tally.shape)

    def _check(self, made: Plan) -> None:
        """Refuse to go on with values that are not finite; says whose came first, and when."""
        bad = ~torch.isfinite(torch.cat(self._witness)) if self._witness else torch.empty(0)
        self._witness.clear()
        if bool(bad.any()):
            wrong = np.flatnonzero(made.side == 0)[bad.cpu().numpy()]
            first = wrong[np.argmin(made.time[wrong])]
            raise self._fault(int(made.worker[first]), f"at time {made.time[first]:.6g}")
        if not bool(torch.isfinite(self.rows.sum())):
            finite = torch.isfinite(self.rows.sum((1, 2)))
            lost = int(torch.nonzero(~finite)[0]) if not finite.all() else 0
            raise self._fault(lost, f"by time {self.time:.6g}")

    def _fault(self, worker: int, when: str) -> RuntimeFault:
        return RuntimeFault(
            f"worker {worker}, {when}: a value is not finite any more. Lower the learning rate, "
            "look at the data, or, with DADAO, at how far the rates are below those it is made for"
        )


def _transformed(rows: Tensor, matrix: NDArray[np.floating]) -> Tensor:
    """`matrix` [T, S] applied to the slots of `rows` [n, S, d]: [n, T, d]."""
    if np.array_equal(matrix, np.eye(rows.shape[1])):
        return rows.contiguous()
    found = rows.new_zeros(len(rows), len(matrix), rows.shape[2])
    for t, weights in enumerate(matrix.tolist()):
        for s, weight in enumerate(weights):
            if weight:
                found[:, t].add_(rows[:, s], alpha=weight)
    return found
