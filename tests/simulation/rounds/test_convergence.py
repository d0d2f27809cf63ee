"""Methods that converge to the optimum do, at least as fast as their theory says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from decent.errors import ConfigError
from decent.simulation.rounds import (
    ADOM,
    MSDA,
    AllReduce,
    Continuized,
    GradientTracking,
    Method,
    follow,
    get,
)
from decent.simulation.rounds.edges import Edges
from decent.simulation.rounds.msda import chebyshev

from .common import Alternating, Quadratic, Static, distances, graph, problem, quadratic

GRAPHS = [("ring", 8), ("star", 7), ("line", 6), ("complete", 6), ("line", 2), ("alone", 1)]
EXACT: list[tuple[Method, float]] = [
    (AllReduce(), 200),
    (GradientTracking(), 600),
    (MSDA(), 150),
    (ADOM(), 6000),
    (ADOM(multi_consensus=True), 1500),
    (Continuized(seed=1), 400),
]


def slope(errors: NDArray[np.float64], skip: int) -> float:
    """Of ln error per round, after the first `skip`."""
    return float(np.polyfit(np.arange(skip, len(errors)), np.log(errors[skip:]), 1)[0])


@pytest.mark.parametrize(("name", "n"), GRAPHS)
@pytest.mark.parametrize(("method", "gradients"), EXACT, ids=lambda each: getattr(each, "name", ""))
def test_reach_the_optimum(method: Method, gradients: float, name: str, n: int) -> None:
    case = problem(quadratic(n), name)
    start = case.objective.measures(case.start)["distance"]
    curve = follow(
        method, case, gradients=gradients, until=lambda now: now["distance"] < 1e-10 * start
    )
    assert curve.measures["distance"][-1] < 1e-10 * start
    assert curve.measures["consensus"][-1] < 1e-9 * start


@pytest.mark.parametrize(("name", "n"), [("ring", 8), ("star", 7), ("line", 6), ("complete", 6)])
@pytest.mark.parametrize("kappa", [10.0, 50.0])
def test_msda_is_within_its_bound(name: str, n: int, kappa: float) -> None:
    case = problem(quadratic(n, kappa=kappa), name)
    _, gap = case.gossip_matrix()
    K = math.floor(1 / math.sqrt(gap))
    c = ((1 - math.sqrt(gap)) / (1 + math.sqrt(gap))) ** K
    root = math.sqrt(kappa) * (1 + c) / (1 - c)
    assert root <= 2 * math.sqrt(kappa)
    errors = distances(MSDA(), case, int(20 * root))
    assert slope(errors[errors > 1e-24], 5) < math.log(1 - 1 / root)


@pytest.mark.parametrize("multi", [False, True])
@pytest.mark.parametrize(("name", "n"), [("ring", 8), ("star", 7), ("complete", 6)])
def test_adom_is_within_its_bound(name: str, n: int, multi: bool) -> None:
    case = problem(quadratic(n), name)
    chi = 1 / case.gossip_matrix()[1]
    chi = min(2.0, chi) if multi else chi
    errors = distances(ADOM(multi), case, 1500)
    bound = math.log(1 - math.sqrt(1 / 10) / (32 * chi))
    assert slope(errors[errors > 1e-24], 100) < bound


@pytest.mark.parametrize(("name", "n"), [("ring", 8), ("star", 8), ("complete", 6)])
def test_continuized_is_within_its_bound(name: str, n: int) -> None:
    case = problem(quadratic(n), name)
    edges = Edges(case.topology, 0).topology
    assert sum(edges.rates) == pytest.approx(1)
    eta = 0.5 * math.sqrt(1 / (10 * edges.chi_1 * edges.chi_2))
    mean = np.mean([distances(Continuized(seed), case, 40) for seed in range(16)], axis=0)
    assert slope(mean, 5) < -eta * n


def radius(weights: NDArray[np.float64], curvatures: NDArray[np.float64], step: float) -> float:
    """Of gradient tracking's round, without the one eigenvalue 1 that belongs to mean(q − Hx)."""
    H, W, n = np.diag(curvatures), weights, len(weights)
    matrix = np.block([[W, -step * np.eye(n)], [H @ (W - np.eye(n)), W - step * H]])
    values = np.linalg.eigvals(matrix)
    return float(np.abs(np.delete(values, np.abs(values - 1).argmin())).max())


@given(
    st.sampled_from(["ring", "star", "line", "complete", "barbell"]),
    st.lists(st.floats(0.01, 1), min_size=4, max_size=9),
)
def test_steps_below_the_bound_are_safe_for_tracking(name: str, curvatures: list[float]) -> None:
    n = len(curvatures) // 2 * 2
    weights = Static(graph(name, n)).weights(0)
    h = np.array(curvatures[:n]) / max(curvatures[:n])
    bound = (1 + np.linalg.eigvalsh(weights)[0]) ** 2 / 2
    assert radius(weights, h, 0.999 * bound) < 1
    assert radius(weights, np.ones(n), 1.001 * bound) > 1


def test_tracking_where_the_mixing_changes() -> None:
    changing = problem(quadratic(8), mixing=Alternating(8))
    errors = distances(GradientTracking(step=0.02), changing, 800)
    assert errors[-1] < 1e-10 * errors[0]
    with pytest.raises(ConfigError, match=r"Give step"):
        distances(GradientTracking(), changing, 1)


@pytest.mark.parametrize(("name", "n"), [("ring", 8), ("line", 9), ("complete", 4), ("alone", 1)])
def test_chebyshev_gossip_is_its_polynomial(name: str, n: int) -> None:
    case = problem(quadratic(n), name)
    matrix, gap = case.gossip_matrix()
    identity = torch.eye(n, dtype=torch.float64)
    for K in (1, 2, math.floor(1 / math.sqrt(gap)), 7):
        made = chebyshev(matrix, gap, K, identity)
        if gap > 1 - 1e-9:  # the polynomial's 0/0: both are the projection
            torch.testing.assert_close(made, matrix, atol=1e-12, rtol=0)
            continue
        values = torch.linalg.eigvalsh(matrix).numpy()
        rho = (1 - gap) / (1 + gap)
        polynomial = np.polynomial.Chebyshev.basis(K)
        wanted = 1 - polynomial((1 - 2 * values / (1 + gap)) / rho) / polynomial(1 / rho)
        found = torch.linalg.eigvalsh(made).numpy()
        np.testing.assert_allclose(found, np.sort(wanted), atol=1e-12)
        assert_spread(found, gap, K)


def assert_spread(values: NDArray[np.float64], gap: float, K: int) -> None:
    """All but consensus lie where MSDA's step counts on them."""
    c = ((1 - math.sqrt(gap)) / (1 + math.sqrt(gap))) ** K
    low, high = ((1 + sign * c) ** 2 / (1 + c**2) for sign in (-1, 1))
    assert abs(values[0]) < 1e-12
    assert low - 1e-12 < values[1]
    assert values[-1] < high + 1e-12


@pytest.mark.parametrize("name", ["msda", "adom", "continuized", "tracking", "local_sgd"])
def test_without_constants_there_is_no_theory(name: str) -> None:
    case = problem(quadratic(4))
    objective = case.objective
    assert isinstance(objective, Quadratic)
    del objective.mu, objective.L
    with pytest.raises(ConfigError, match="no mu and L"):
        follow(get(name), case, gradients=1)


@pytest.mark.parametrize("name", ["msda", "continuized"])
def test_without_dual_gradients_there_is_no_dual_method(name: str) -> None:
    case = problem(quadratic(4))
    object.__setattr__(case.objective, "dual_gradients", None)
    with pytest.raises(ConfigError, match="dual_gradients"):
        follow(get(name), case, gradients=1)
