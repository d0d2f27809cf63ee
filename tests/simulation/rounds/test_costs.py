"""Gradients and messages are counted exactly, and alike for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decent.simulation.rounds import (
    ADOM,
    DPSGD,
    METHODS,
    MSDA,
    AllReduce,
    Continuized,
    DiLoCo,
    GossipPGA,
    GradientTracking,
    LocalSGD,
    Method,
    NoLoCo,
    RandomGossip,
    get,
)
from decent.simulation.rounds.edges import Edges, layers
from decent.topology import Topology

from .common import Alternating, Quadratic, first, problem, quadratic

# After 10 rounds on a ring of 8, with 8 edges and an eigengap of 0.146.
COSTS: list[tuple[Method, float, float]] = [
    (AllReduce(), 10, 70),
    (DPSGD(), 10, 80),
    (DPSGD(adapt_first=True), 10, 80),
    (GradientTracking(), 10, 160),  # x and q
    (RandomGossip(), 10, 80),
    (RandomGossip(exchanges=0.3), 10, 24),
    (GossipPGA(period=4), 10, 2 * 7 + 8 * 8),
    (LocalSGD(period=4), 10, 2 * 7),
    (DiLoCo(period=4), 10, 2 * 7),
    (NoLoCo(period=4), 10, 2 * 4),
    (MSDA(), 10, 9 * 2 * 8),  # K = 2; the tenth gradient is not gossiped yet
    (ADOM(), 10, 10 * 2 * 8),
    (ADOM(multi_consensus=True), 10, 10 * 2 * 5 * 8),  # T = 5
    (Continuized(), 20, 80),
]


@pytest.mark.parametrize(("method", "gradients", "messages"), COSTS)
def test_costs_of_ten_rounds(method: Method, gradients: float, messages: float) -> None:
    rounds = first(method, problem(quadratic(8)), 10)
    assert rounds[0][1:] == (0, 0)
    assert rounds[-1][1:] == (gradients, messages)


@pytest.mark.parametrize(
    ("method", "edges"), [(ADOM(), 2 * 299), (ADOM(True), 2 * 62192), (MSDA(), 5083)]
)
def test_costs_of_a_round_on_the_star_of_dadaos_notebook(method: Method, edges: int) -> None:
    """300 workers. It counts one vector for each edge and round of ADOM+, which sends two."""
    rounds = first(method, problem(quadratic(300, d=2), "star"), 3)
    assert rounds[3].messages - rounds[2].messages == edges


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"continuized"}))
def test_a_round_is_one_gradient_of_each_worker(name: str) -> None:
    """And none is taken before a round has begun. Continuized ones look at their points beside."""
    case = problem(quadratic(6))
    f = case.objective
    assert isinstance(f, Quadratic)
    for k, each in zip(range(12), get(name).rounds(case), strict=False):
        assert each.gradients == k
        assert f.taken == 6 * k


def test_who_mixes_counts() -> None:
    case = problem(quadratic(8), mixing=Alternating(8))
    assert first(DPSGD(), case, 10)[-1].messages == 40
    assert first(GradientTracking(step=0.1), case, 10)[-1].messages == 80


@pytest.mark.parametrize("name", METHODS)
def test_the_start_is_yielded_as_it_is_and_stays(name: str) -> None:
    case = problem(quadratic(6))
    kept = case.start.clone()
    rounds = first(get(name), case, 5)
    assert torch.equal(rounds[0].points, kept)
    assert torch.equal(case.start, kept)


@given(st.lists(st.permutations(range(7)).map(lambda order: tuple(order[:2])), max_size=30))
def test_layers(pairs: list[tuple[int, int]]) -> None:
    """Workers of a layer are distinct, and each meets its pairs in their order."""
    found = layers(np.array(pairs, dtype=np.int64).reshape(-1, 2))
    assert sorted(k for layer in found for k in layer) == list(range(len(pairs)))
    for layer in found:
        workers = [worker for k in layer for worker in pairs[k]]
        assert len(set(workers)) == len(workers)
    for worker in range(7):
        met = [k for layer in found for k in layer if worker in pairs[k]]
        assert met == sorted(met)


def test_edges_are_drawn_by_their_rates() -> None:
    edges = Edges(Topology.from_edges(3, [(0, 1), (1, 2), (0, 2)], [1.0, 2.0, 5.0]), seed=0)
    drawn, counts = np.unique(edges.draw(8000), axis=0, return_counts=True)
    assert drawn.tolist() == [[0, 1], [0, 2], [1, 2]]
    np.testing.assert_allclose(counts / 8000, [1 / 8, 5 / 8, 2 / 8], atol=0.025)
    assert edges.gaps(8000).mean() == pytest.approx(1, abs=0.05)
