"""Samples of a model: noise at t = 1 carried along its velocity to data at t = 0.

Trajectory i has its own random stream (seed, i), for its noise and for what a strategy draws, so
samples don't depend on how they are batched, to rounding. Rows that had committed to an expert when
it was lost are started again, from fresh noise of their own streams, with the experts that are
left; the metadata says which.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decent.errors import ConfigError, RuntimeFault
from decent.experts.devices import device_of
from decent.experts.draw import Draw
from decent.experts.ensemble import Ensemble, ensemble_in
from decent.experts.guidance import Guided
from decent.experts.prediction import Model
from decent.experts.solvers import Progress, Solver, solver


@dataclass(frozen=True)
class Samples:
    """x [N, *S], and how it came about: settings, calls of the model (`evaluations`), and of an
    ensemble its strategy, experts per row (`active`), those `lost` and the rows `restarted`."""

    x: Tensor
    metadata: dict[str, Any]


def sample(
    model: Model,
    noise: Tensor | Sequence[int],
    steps: int = 40,
    method: str = "euler",
    condition: Tensor | None = None,
    guidance: float = 1.0,
    seed: int = 0,
    batch: int | None = None,
    on_step: Progress | None = None,
    clusters: Tensor | None = None,
) -> Samples:
    """Samples of `model` from `noise` [N, *S], or N of them for a shape (N, *S).

    `clusters` [N] are true clusters, for the strategy oracle. Raises ConfigError for an unknown
    method or impossible numbers, RuntimeFault when samples are not finite or too few experts live.
    """
    x = noise.clone() if isinstance(noise, Tensor) else torch.empty(*noise, device=device_of(model))
    size = max(len(x), 1) if batch is None else batch
    _check(len(x), steps=steps, batch=size, condition=condition, clusters=clusters)
    guided = Guided(model, guidance) if guidance != 1 else model
    run = _Run(guided, solver(method), steps, ensemble_in(model))
    starts = range(0, len(x), size)
    for number, start in enumerate(starts):
        rows = torch.arange(start, min(start + size, len(x)))
        draw = Draw.of(seed, rows.tolist(), None if clusters is None else clusters[rows])
        if not isinstance(noise, Tensor):
            x[rows] = draw.normal(x.shape[1:]).to(x)
        own = None if condition is None else condition[rows].to(x.device)
        run.on_step = _shifted(on_step, number * steps, len(starts) * steps)
        x[rows] = run.trajectories(x[rows], own, draw, rows)
    settings = {"method": method, "steps": steps, "guidance": guidance, "seed": seed}
    return Samples(x, settings | {"shape": list(x.shape)} | run.told())


class _Run:
    """What the batches of one call share, and what is counted over them."""

    def __init__(self, model: Model, solver: Solver, steps: int, ensemble: Ensemble | None) -> None:
        self.model, self.solver, self.steps, self.ensemble = model, solver, steps, ensemble
        self.on_step: Progress | None = None
        self.evaluations, self.restarted = 0, list[int]()
        self._before = self._usage()

    @torch.no_grad()
    def trajectories(self, x: Tensor, condition: Tensor | None, draw: Draw, rows: Tensor) -> Tensor:
        """Data from noise x; `rows` are these trajectories' numbers."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            self.evaluations += 1
            return self.model(x, t, condition)

        with nullcontext() if self.ensemble is None else self.ensemble.following(draw):
            x = self.solver(field, x, self.steps, self.on_step)
        if not x.isfinite().all():
            raise RuntimeFault("samples are not finite: the model's velocities blow up")
        again = draw.committed[draw.rows]
        if again.any():
            x[again.to(x.device)] = self._again(x, condition, draw.at(again), rows[again], again)
        return x

    def _again(
        self, x: Tensor, condition: Tensor | None, draw: Draw, rows: Tensor, again: Tensor
    ) -> Tensor:
        self.restarted += rows.tolist()
        draw.restart()
        own = None if condition is None else condition[again.to(x.device)]
        return self.trajectories(draw.normal(x.shape[1:]).to(x), own, draw, rows)

    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = {"evaluations": self.evaluations}
        if self.ensemble is None:
            return told
        rows, asked = (now - old for now, old in zip(self._usage(), self._before, strict=True))
        told |= {"strategy": str(self.ensemble.strategy), "active": asked / max(rows, 1)}
        lost = {str(k): why for k, why in self.ensemble.lost.items()}
        return told | {"lost": lost, "restarted": sorted(self.restarted)}

    def _usage(self) -> tuple[int, int]:
        return (self.ensemble.rows, self.ensemble.asked) if self.ensemble is not None else (0, 0)


def _shifted(on_step: Progress | None, done: int, total: int) -> Progress | None:
    return None if on_step is None else lambda step, _: on_step(done + step, total)


def _check(
    count: int, steps: int, batch: int, condition: Tensor | None, clusters: Tensor | None
) -> None:
    for name, number in (("steps", steps), ("batch", batch)):
        if number < 1:
            raise ConfigError(f"{name} = {number}", "1 or more")
    for name, each in (("condition", condition), ("clusters", clusters)):
        if each is not None and len(each) != count:
            raise ConfigError(f"{name} for {len(each)} of {count} samples", "one for each sample")
