"""Curves end where they should, and methods are found by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decent.errors import ConfigError, RuntimeFault
from decent.simulation.rounds import DPSGD, METHODS, LocalSGD, Method, Problem, Round, follow, get
from decent.topology import family

from .common import Quadratic, Static, problem, quadratic, scattered


def test_a_curve_is_one_entry_per_round() -> None:
    case = problem(quadratic(6), start=scattered(6, 4))
    curve = follow(DPSGD(), case, gradients=20)
    np.testing.assert_array_equal(curve.gradients, np.arange(21))
    np.testing.assert_array_equal(curve.messages, 6 * np.arange(21))
    assert set(curve.measures) == {"distance", "consensus"}
    start, end = case.start.numpy(), curve.points.numpy()
    consensus = [((x - x.mean(0)) ** 2).sum(1).mean() for x in (start, end)]
    np.testing.assert_allclose(curve.measures["consensus"][[0, -1]], consensus)
    assert curve.measures["distance"][-1] == case.objective.measures(curve.points)["distance"]


def test_budgets_and_thinning() -> None:
    case = problem(quadratic(6))
    assert follow(DPSGD(), case, messages=20).messages.tolist() == [0, 6, 12, 18, 24]
    assert follow(DPSGD(), case, gradients=9, messages=30).gradients[-1] == 5
    seen: list[Round] = []
    thin = follow(DPSGD(), case, gradients=10, every=4, on_progress=seen.append)
    assert thin.gradients.tolist() == [0, 4, 8, 10]
    assert [each.gradients for each in seen] == [0, 4, 8, 10]
    met = follow(DPSGD(), case, until=lambda now: now["distance"] < 30)
    assert met.measures["distance"][-1] < 30 <= met.measures["distance"][-2]


def test_no_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="no budget: expected an end"):
        follow(DPSGD(), problem(quadratic(4)))
    with pytest.raises(ConfigError, match="worker alone"):
        follow(DPSGD(), problem(quadratic(1)), messages=5)


def test_divergence_is_said() -> None:
    case = problem(quadratic(4), lr=10.0)
    with pytest.raises(RuntimeFault, match=r"dpsgd, round \d+: .* worker \d .* smaller step"):
        follow(DPSGD(), case, gradients=2000)


def test_the_worker_at_fault_is_named() -> None:
    f = quadratic(4)
    f.slopes[2] = torch.inf
    with pytest.raises(RuntimeFault, match="local_sgd, round 1: the point of worker 2 "):
        follow(LocalSGD(), problem(f, lr=0.01), gradients=5)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("graph", "n"), [("alone", 1), ("line", 2), ("complete", 5)])
def test_all_run_in_single_precision(name: str, graph: str, n: int) -> None:
    f = quadratic(n)
    single = Quadratic(f.hessians.float(), f.centers.float())
    curve = follow(get(name), problem(single, graph), gradients=30)
    assert curve.points.dtype == torch.float32
    assert curve.measures["distance"][-1] < curve.measures["distance"][0]


def test_methods_by_name() -> None:
    assert all(get(name).name == name for name in METHODS)
    assert get("local_sgd", period=3) == LocalSGD(period=3)
    for name, options, words in (
        ("local_sdg", {}, "Did you mean 'local_sgd'"),
        ("local_sgd", {"period": 0}, "period = 0"),
        ("noloco", {"period": 2.5}, "a value of type int"),
        ("gossip", {"exchanges": -1.0}, "exchanges = -1.0"),
        ("dpsgd", {"step": 1}, "option 'step'"),
        ("decent.topology:families", {}, "a tuple|a list|a dict"),
    ):
        with pytest.raises(ConfigError, match=words):
            get(name, **options)


def test_a_method_of_ones_own() -> None:
    made = get(f"{__name__}:Still")
    assert isinstance(made, Method)
    assert follow(made, problem(quadratic(3)), gradients=2).gradients.tolist() == [0, 1, 2]


class Still:
    """Gradients without consequences."""

    name = "still"

    def rounds(self, problem: Problem):  # type: ignore[no-untyped-def]
        for k in range(100):
            yield Round(problem.start, k, 0)


def test_problems_that_do_not_fit_are_refused() -> None:
    f, ring = quadratic(4), family("ring", 4)
    with pytest.raises(ConfigError, match=r"start of shape \(4, 3\): expected \(4, 4\)"):
        Problem(f, Static(ring), ring, torch.zeros(4, 3))
    with pytest.raises(ConfigError, match="topology of 5 workers"):
        Problem(f, Static(ring), family("ring", 5), torch.zeros(4, 4))
