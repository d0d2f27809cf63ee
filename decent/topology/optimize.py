"""Edge rates that mix fastest for what they cost: those that minimise √(χ₁χ₂) on a budget.

The budget is on exchanges per unit of time: `total`, Σ λ_e ≤ T, or `per_worker`, Σ_j λ_ij ≤ T_i at
each worker i. With Λ = Σ λ_e (e_i − e_j)(e_i − e_j)ᵀ over the m edges of n workers, and C the rates
within the budget, the semidefinite programme is

    minimise t₁ + t₂  over λ ∈ u·C, λ ≥ 0, u ≥ 0, such that
      u² (e_i − e_j)ᵀ Λ⁺ (e_i − e_j) ≤ t₁   on every edge (i, j)
      Λ ⪰ (1/t₂)·(I − 11ᵀ/n)

and the rates are λ/u, with √(2χ₁χ₂) = (t₁ + t₂)/2. The second constraint is a matrix of n − 1,
after projection on what is orthogonal to 1. The first is one of order n for each edge as the
source writes it; here the resistance is, by Thomson's principle, the least energy Σ_e f_e²/λ_e of
a current f of strength u from i to j: m² cones of three numbers, and tens of times faster.

χ₂ counts edges with a rate alone, but the programme counts all. So dropping edges may be better
still: those of the smallest rates go, a few at a time, as long as the graph hangs together; each
time the programme is solved again, and the best of all is kept. That is a search, not a proof.

At n = 16 all of it takes seconds. On two cores one solution takes 100 s and 0.7 GB for 64 workers
with 352 edges, 125 s and 1.2 GB for 32 with all 496; the search, several of these.

Source: Nabli and Oyallon, "DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization",
JMLR 26(207), 2025, section 4 and Prop. 7 (where u ≥ 1, which is too much for dense graphs).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decent.errors import MissingExtra, RuntimeFault, TopologyError
from decent.topology.edges import Edge, Pairs, as_pairs, connected
from decent.topology.graph import Topology

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

LARGEST_WORKERS, LARGEST_EDGES = 64, 512
TOLERANCE = 1e-7
NOTHING = 1e-5
"""A gain that is not worth unequal rates."""
HARDLY = 1e-4
"""A share of the highest rate that is not worth an edge."""
ROUNDS = 8
"""In so many steps of the search all edges that can be spared are dropped."""
PATIENCE = 2
"""After so many steps in a row that have made nothing better, the search ends."""


@dataclass(frozen=True)
class Optimum:
    """The same rate on every edge, and the best rates, both as fast as the budget allows; edges
    that are best left out have the rate 0."""

    uniform: Topology
    optimised: Topology

    @property
    def gain(self) -> float:
        """How many times smaller √(χ₁χ₂) has become, 1 or more."""
        return _cost(self.uniform) / _cost(self.optimised)

    @property
    def dropped(self) -> tuple[Edge, ...]:
        """The edges that are best left out."""
        best = self.optimised
        return tuple(e for e, rate in zip(best.edges, best.rates, strict=True) if rate == 0)


def exchanges_needed(topology: Topology) -> float:
    """Σ rates · √(2χ₁χ₂): exchanges per unit of time, over all edges in proportion to their rates,
    at which χ₁χ₂ = ½. It tells of the proportions of the rates alone: less is better."""
    return math.fsum(topology.rates) * _cost(topology)


def optimize(
    topology: Topology,
    total: float | None = None,
    *,
    per_worker: Sequence[float] | None = None,
    prune: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Optimum:
    """The rates that minimise √(χ₁χ₂) on the edges of `topology`, those of rate 0 among them.

    The budget is `total` exchanges per unit of time, by default as many as there are, or
    `per_worker` one number for each. Without `prune` every edge is kept. `progress` is told, in
    words, after each solution. Raises TopologyError for a budget that is none and for what is too
    large, MissingExtra without cvxpy and clarabel, RuntimeFault if the solver fails.
    """
    _check_size(topology)
    budget = _budget(topology, total, per_worker)
    uniform = topology.with_rates([budget.even] * len(topology.edges))
    best, since, source = uniform, 0, _source(topology, budget)
    for found in _solutions(uniform, budget, prune):
        live = sum(rate > 0 for rate in found.rates)
        progress(f"{live} edges: {exchanges_needed(found):.5g} exchanges per unit of time needed")
        better = _cost(found) < _cost(best) * (1 - NOTHING)
        best, since = (found, 0) if better else (best, since + 1)
        if since == PATIENCE:
            break
    return Optimum(uniform, replace(best, source=source))


def _cost(topology: Topology) -> float:
    """√(2χ₁χ₂), units of time."""
    return math.sqrt(2 * topology.chi_1 * topology.chi_2)


def _check_size(topology: Topology) -> None:
    n, m = topology.n, len(topology.edges)
    if n < 2:
        raise TopologyError("1 worker", "2 or more", "one alone has no rates to choose")
    if n > LARGEST_WORKERS or m > LARGEST_EDGES:
        raise TopologyError(
            f"{n} workers with {m} edges",
            f"at most {LARGEST_WORKERS} workers and {LARGEST_EDGES} edges, beyond which the solver "
            "takes many minutes",
            "choose a smaller graph or one with fewer edges, or keep the rates it has",
        )


@dataclass(frozen=True)
class _Budget:
    """rows[k, m] @ rates ≤ limits[k], in exchanges per unit of time."""

    rows: Matrix
    limits: Vector

    @property
    def even(self) -> float:
        """The highest rate that all edges can have at once."""
        return self.scale(np.ones(self.rows.shape[1]))

    def scale(self, rates: Vector) -> float:
        """How many times `rates` use up the budget."""
        used = self.rows @ rates
        return float((self.limits[used > 0] / used[used > 0]).min())


def _budget(topology: Topology, total: float | None, each: Sequence[float] | None) -> _Budget:
    if total is not None and each is not None:
        raise TopologyError(
            "a total and a budget per worker", "one of the two", "leave one of them out"
        )
    if each is None:
        whole = math.fsum(topology.rates) if total is None else total
        _check_limits("total", [whole], 1)
        return _Budget(np.ones((1, len(topology.edges))), np.array([whole]))
    _check_limits("per_worker", each, topology.n)
    return _Budget(np.abs(_incidence(topology.n, as_pairs(topology.edges))).T, np.array(each))


def _check_limits(name: str, limits: Sequence[float], count: int) -> None:
    if len(limits) != count:
        raise TopologyError(
            f"{name} has {len(limits)} entries", f"{count}, one for each worker", "give all of them"
        )
    wrong = [limit for limit in limits if not (math.isfinite(limit) and limit > 0)]
    if wrong:
        raise TopologyError(
            f"{name} = {wrong[0]}",
            "a finite number of exchanges per unit of time, greater than 0",
            "to find proportions alone, give any",
        )


def _source(topology: Topology, budget: _Budget) -> str:
    limit = f"{budget.limits[0]:.6g} in all" if len(budget.limits) == 1 else "a limit per worker"
    return (
        f"rates that minimise √(χ₁χ₂) at {limit}, after Nabli and Oyallon, JMLR 26(207), 2025; "
        f"the graph: {topology.source or topology.family}"
    )


def _solutions(topology: Topology, budget: _Budget, prune: bool) -> Iterator[Topology]:
    """The best rates on all edges, then on ever fewer."""
    n, pairs = topology.n, as_pairs(topology.edges)
    kept = np.ones(len(pairs), bool)
    count = math.ceil((len(pairs) - n + 1) / ROUNDS)
    while kept.any():
        rates = np.zeros(len(pairs))
        rates[kept] = _solve(n, pairs[kept], _Budget(budget.rows[:, kept], budget.limits))
        yield topology.with_rates(rates.tolist())
        kept = _without_smallest(n, pairs, rates, count) if prune else np.zeros_like(kept)


def _without_smallest(n: int, pairs: Pairs, rates: Vector, count: int) -> NDArray[np.bool_]:
    """Which edges stay if `count` of the slowest go, and all that have hardly any rate, but none
    that holds the graph together; none at all if none can go."""
    kept, gone = rates > 0, 0
    for k in np.argsort(rates, kind="stable")[np.count_nonzero(~kept) :]:
        if gone >= count and rates[k] > HARDLY * rates.max():
            break
        kept[k] = False
        kept[k] = not connected(n, pairs[kept])
        gone += not kept[k]
    return kept if gone else np.zeros_like(kept)


def _solve(n: int, pairs: Pairs, budget: _Budget) -> Vector:
    """The programme's rates on these edges, shape [edges], scaled to use up the budget."""
    cp = _cvxpy()
    unit = budget.even  # so that the solver's numbers are of order 1
    rates, problem = _programme(cp, _incidence(n, pairs), budget.rows, budget.limits / unit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on accuracy: the status says it too
            precision = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), TOLERANCE)
            problem.solve(solver=cp.CLARABEL, **precision)
    except cp.SolverError:
        pass
    if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):  # the latter to 5·10⁻⁵
        raise RuntimeFault(
            f"the solver found no optimal rates for {n} workers and {len(pairs)} edges (it says "
            f"{problem.status or 'nothing'}): expected a solution. Try a budget or a graph whose "
            "figures are less far apart"
        )
    found: Vector = np.maximum(rates.value, 0.0)
    return found * budget.scale(found)


def _programme(cp: Any, incidence: Matrix, rows: Matrix, limits: Vector) -> tuple[Any, Any]:
    """The programme, and its variable λ, for an `incidence` of shape [m, n]."""
    m, n = incidence.shape
    edges = incidence @ np.linalg.qr(np.eye(n)[:, 1:] - 1 / n)[0]  # [m, n − 1], orthogonal to 1
    rates, u, t1 = cp.Variable(m, nonneg=True), cp.Variable(nonneg=True), cp.Variable()
    gap = cp.Variable(nonneg=True)  # 1/t₂
    current, energy = cp.Variable((m, m)), cp.Variable((m, m))  # [for this edge, over that one]
    across = cp.vec(cp.outer(np.ones(m), rates), order="C")
    f, power = cp.vec(current, order="C"), cp.vec(energy, order="C")
    return rates, cp.Problem(
        cp.Minimize(t1 + cp.inv_pos(gap)),
        [
            rows @ rates <= u * limits,
            edges.T @ cp.diag(rates) @ edges >> gap * np.eye(n - 1),
            current @ incidence == u * incidence,
            cp.SOC(across + power, cp.vstack([2 * f, across - power])),  # f² ≤ power · rate
            cp.sum(energy, axis=1) <= t1,
        ],
    )


def _cvxpy() -> Any:
    try:
        import clarabel  # noqa: F401
        import cvxpy
    except ImportError:
        raise MissingExtra(
            "cvxpy and clarabel are not installed",
            "both, to optimise rates",
            "install them: pip install 'decent[rates]'",
        ) from None
    return cvxpy


def _incidence(n: int, pairs: Pairs) -> Matrix:
    """1 at an edge's one end, −1 at the other; shape [edges, n]."""
    matrix = np.zeros((len(pairs), n))
    matrix[np.arange(len(pairs)), pairs[:, 0]] = 1.0
    matrix[np.arange(len(pairs)), pairs[:, 1]] = -1.0
    return matrix
