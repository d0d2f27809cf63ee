"""Follow a method and write down how far it got, for what it cost.

consensus = mean_i ‖x_i − x̄‖²          beside the measures that the objective has
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.errors import ConfigError, RuntimeFault
from decent.simulation.rounds.method import Method, Round
from decent.simulation.rounds.problem import Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """Costs so far and measures, one entry for each round written down; see `problem` for units."""

    gradients: Floats
    messages: Floats
    measures: dict[str, Floats]
    points: Tensor  # [n, d], at the end


def follow(
    method: Method,
    problem: Problem,
    *,
    gradients: float | None = None,
    messages: float | None = None,
    until: Callable[[dict[str, float]], bool] | None = None,
    every: float = 0.0,
    on_progress: Callable[[Round], None] | None = None,
) -> Curve:
    """Run `method` up to the first round that has used up `gradients` per worker or `messages`, or
    whose measures satisfy `until`. The start, the last round, and one each `every` gradients per
    worker are measured and told to `on_progress`; only those can satisfy `until`.

    Raises RuntimeFault in the round in which a worker's point is no longer finite.
    """
    _check_budget(problem, gradients, messages, until)
    costs: list[tuple[float, float]] = []
    found: list[dict[str, float]] = []
    for number, at in enumerate(method.rounds(problem)):
        _check_finite(method, number, at.points)
        spent = _reached(at.gradients, gradients) or _reached(at.messages, messages)
        if costs and at.gradients < costs[-1][0] + every and not spent:
            continue
        costs.append((at.gradients, at.messages))
        found.append(measures(problem, at.points))
        if on_progress is not None:
            on_progress(at)
        if spent or (until is not None and until(found[-1])):
            break
    table = {name: np.array([each[name] for each in found]) for name in found[0]}
    used = np.array(costs, dtype=np.float64)
    return Curve(used[:, 0], used[:, 1], table, at.points.clone())


def measures(problem: Problem, points: Tensor) -> dict[str, float]:
    """The objective's measures of `points` [n, d], and their consensus error."""
    away = points - points.mean(dim=0)
    consensus = float(away.square().sum()) / len(points)
    return {**problem.objective.measures(points), "consensus": consensus}


def _reached(used: float, budget: float | None) -> bool:
    return budget is not None and used >= budget


def _check_budget(
    problem: Problem,
    gradients: float | None,
    messages: float | None,
    until: Callable[[dict[str, float]], bool] | None,
) -> None:
    if gradients is None and until is None and (messages is None or problem.n == 1):
        given = "no budget" if messages is None else f"messages = {messages} for a worker alone"
        raise ConfigError(given, "an end", "give gradients, the gradients per worker to stop after")


def _check_finite(method: Method, number: int, points: Tensor) -> None:
    if not torch.isfinite(points).all():
        worker = int(torch.isfinite(points).all(dim=1).logical_not().nonzero()[0])
        raise RuntimeFault(
            f"{method.name}, round {number}: the point of worker {worker} is no longer finite. The "
            "method diverged; choose a smaller step"
        )
