"""What experiments on convex functions share: methods followed alike, their slopes and costs.

    error       (1/n) Σ_i ‖x_i − x*‖², over what it is at the start, where every x_i = 0; with
                replicas the mean over them, as the theorems say E‖x − x*‖²
    gradients   per worker; DADAO's unit of time, so that its error has a rate per gradient
    messages    in total: exchanges over edges, one vector each way

DADAO runs at the rates it is designed for: those of a graph scaled so that χ₁χ₂ = ½, which takes
√(2χ₁χ₂) exchanges per unit of time if the graph had one. Its theorem then says that the error falls
at least as e^(−rt), r = √(μ/L)/(8√2): `theorem`. Source: Nabli & Oyallon, ICML 2023, Th. 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decent.dynamics.dadao import Dadao
from decent.learning.convex import Convex
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Superposed
from decent.simulation.ideal.run import initial_state
from decent.simulation.rounds import Method, Problem, follow
from decent.topology import Topology
from decent.topology.varying import static

Floats = NDArray[np.float64]
Bounds = tuple[float, float]
"""The largest error and the smallest, of a part of a curve."""
TARGET = 1e-6


@dataclass(frozen=True)
class Track:
    """A method's error for what it has spent; columns of the same length."""

    gradients: Floats
    messages: Floats
    error: Floats

    def slope(self, cost: str = "gradients", part: Bounds = (1e-4, 1e-10)) -> float:
        """d ln(error) / d cost, a least-squares fit over a `part` of the curve from where the error
        first falls below its upper end to where it first falls below the lower; NaN if there is
        not enough of that."""
        first, last = (int(np.argmax(self.error < bound)) for bound in part)
        last = last if self.error[last] < part[1] else len(self.error)
        if self.error[first] >= part[0] or last - first < 3:
            return math.nan
        x, y = getattr(self, cost)[first:last], np.log(self.error[first:last])
        return float(np.polyfit(x, y, 1)[0])

    def spent(self, cost: str, target: float = TARGET) -> float:
        """What it took until the error was below `target` for good; NaN if it never was."""
        above = np.flatnonzero(self.error > target)
        k = int(above[-1]) + 1 if len(above) else 0
        if k in (0, len(self.error)):
            return math.nan
        low, high = np.log(self.error[k - 1 : k + 1])
        share = (low - math.log(target)) / (low - high)
        x = getattr(self, cost)
        return float(x[k - 1] + share * (x[k] - x[k - 1]))

    def thinned(self, points: int = 80) -> dict[str, list[float]]:
        """For a plot: at most so many points, as evenly over the cost in logarithms as can be."""
        count = len(self.error)
        places = np.unique(np.geomspace(1, count, min(points, count)).round().astype(int)) - 1
        columns = {name: getattr(self, name)[places] for name in ("gradients", "messages", "error")}
        return {name: [float(f"{v:.4g}") for v in values] for name, values in columns.items()}


def theorem(mu: float, L: float) -> float:
    """r per unit of time at χ₁χ₂ = ½."""
    return math.sqrt(mu / L) / (8 * math.sqrt(2))


def needed(topology: Topology) -> float:
    """Exchanges per unit of time at which χ₁χ₂ = ½, over all edges in proportion to their rates."""
    return math.fsum(topology.rates) * math.sqrt(2 * topology.chi_1 * topology.chi_2)


def designed(topology: Topology) -> Topology:
    """The graph at those rates."""
    scale = math.sqrt(2 * topology.chi_1 * topology.chi_2)
    return topology.with_rates([scale * rate for rate in topology.rates])


def dadao(
    objective: Convex,
    topology: Topology,
    *,
    target: float,
    limit: float,
    replicas: int = 8,
    every: float = 1.0,
    seed: int = 0,
    curvature: tuple[float, float] | None = None,
) -> Track:
    """DADAO on the graph at the rates it is designed for, until the error is below `target`, or
    `limit` units of time; looked at `every` so many. `curvature` is μ and L if not the objective's
    own."""
    rule = Dadao(*(curvature or (objective.mu, objective.L)))
    graph = designed(topology)
    points = torch.zeros(objective.n * replicas, objective.size, dtype=objective.dtype)
    engine = Engine(
        objective, rule.system(graph.chi_1, graph.chi_2), Superposed(graph, replicas, seed),
        initial_state(rule, points),
    )  # fmt: skip
    rows: list[tuple[float, float, float]] = []
    for time in np.arange(0, limit + every, every).tolist():
        engine.run(time)
        error = _error(objective, engine.points())
        rows.append((engine.gradients / engine.workers, engine.exchanges / replicas, error))
        if error < target * rows[0][2]:
            break
    return _track(rows)


def rounds(
    objective: Convex,
    topology: Topology,
    method: Method,
    *,
    target: float,
    limit: float,
    every: float = 0.0,
) -> Track:
    """A round-based method on the graph, until the error is below `target` or `limit` gradients per
    worker are spent; looked at `every` so many."""
    start = torch.zeros(objective.n, objective.size, dtype=objective.dtype)
    first = _error(objective, start)
    curve = follow(
        method,
        Problem(objective, static(topology), topology, start),
        gradients=limit,
        until=lambda measured: measured["distance"] < target * first,
        every=every,
    )
    columns = (curve.gradients, curve.messages, curve.measures["distance"])
    return _track(list(zip(*(column.tolist() for column in columns), strict=True)))


def exponent(x: list[float], y: list[float]) -> float:
    """p of the fit y ∝ xᵖ."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _error(objective: Convex, points: torch.Tensor) -> float:
    return float((points - objective.optimum).square().sum(1).mean())


def _track(rows: list[tuple[Any, ...]]) -> Track:
    gradients, messages, error = np.array(rows, dtype=np.float64).T
    return Track(gradients, messages, error / error[0])
