"""Graphs that change with time: doubly stochastic rounds, the same whenever they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, cycle, islice
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.errors import TopologyError
from decent.testing import graphs
from decent.topology import (
    Topology,
    Varying,
    family,
    generated,
    metropolis,
    one_peer_exponential,
    random_matching,
    sequence,
    static,
)

ROUNDS = st.integers(0, 10**6)
SIZES = st.integers(1, 20)


def edge_sets(n: int) -> st.SearchStrategy[list[list[tuple[int, int]]]]:
    edge = st.sampled_from([*combinations(range(n), 2)]) if n > 1 else st.nothing()
    return st.lists(st.lists(edge, unique=True), min_size=1, max_size=5)


@st.composite
def varyings(draw: st.DrawFn) -> Varying:
    """One of every kind."""
    n = draw(SIZES)
    sets = draw(edge_sets(n))
    kinds: list[Callable[[], Varying]] = [
        lambda: static(draw(graphs())),
        lambda: generated(n, lambda k: sets[k % len(sets)]),
        lambda: sequence(n, [*sets, [(0, i) for i in range(1, n)]]),
        lambda: random_matching(n, draw(st.integers(0, 100))),
        lambda: one_peer_exponential(n),
    ]
    return draw(st.sampled_from(kinds))()


@given(varyings(), ROUNDS)
def test_every_round_is_doubly_stochastic_on_its_edges(varying: Varying, k: int) -> None:
    weights = varying.weights(k)
    assert weights.shape == (varying.n, varying.n)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1.0)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)
    off = {(min(e), max(e)) for e in np.argwhere(weights - np.diag(np.diag(weights))).tolist()}
    assert off == set(varying.edges(k))
    assert list(varying.edges(k)) == sorted(off)


@given(varyings(), ROUNDS)
def test_every_vector_sent_is_half_an_exchange(varying: Varying, k: int) -> None:
    weights = varying.weights(k)
    assert varying.exchanges(k) == np.count_nonzero(weights - np.diag(np.diag(weights))) / 2


@given(varyings(), st.lists(st.integers(0, 50), min_size=2))
def test_rounds_are_the_same_in_any_order(varying: Varying, ks: list[int]) -> None:
    first = {k: varying.edges(k) for k in ks}
    assert first == {k: varying.edges(k) for k in sorted(ks)}


@given(graphs())
def test_metropolis_weights_by_their_definition(topology: Topology) -> None:
    weights = metropolis(topology.n, topology.edges)
    for i, j in topology.edges:
        most = max(len(topology.neighbours(i)), len(topology.neighbours(j)))
        assert weights[i, j] == weights[j, i] == 1 / (1 + most)
    if topology.n > 1:  # connected and with a diagonal: it averages in the long run
        assert np.sort(np.abs(np.linalg.eigvalsh(weights)))[-2] < 1


@given(st.integers(0, 7), st.integers(0, 1000))
def test_one_peer_exponential_averages_exactly(log_n: int, start: int) -> None:
    n = 2**log_n
    varying = one_peer_exponential(n)
    product = np.eye(n)
    for k in range(start, start + log_n):
        product = varying.weights(k) @ product
    np.testing.assert_array_equal(product, np.full((n, n), 1 / n))


def test_one_peer_exponential_is_directed() -> None:
    varying = one_peer_exponential(8)
    assert varying.weights(0)[3].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert varying.weights(4)[3].tolist() == [0, 0.5, 0, 0.5, 0, 0, 0, 0]
    assert (len(varying.edges(0)), len(varying.edges(2))) == (8, 4)
    assert [varying.exchanges(k) for k in range(4)] == [4.0] * 4


@given(st.integers(2, 30), st.integers(0, 100), ROUNDS)
def test_a_random_matching_leaves_at_most_one_out(n: int, seed: int, k: int) -> None:
    edges = random_matching(n, seed).edges(k)
    assert len({end for edge in edges for end in edge}) == 2 * len(edges) == n - n % 2
    assert edges == random_matching(n, seed).edges(k)


@pytest.mark.parametrize("make", [one_peer_exponential, random_matching])
@pytest.mark.parametrize("n", [2, 3, 12, 33])
def test_all_rounds_together_connect(make: Callable[[int], Varying], n: int) -> None:
    varying = make(n)
    union = nx.Graph([edge for k in range(30) for edge in varying.edges(k)])
    assert nx.is_connected(union)
    assert len(union) == n


def test_random_matchings_differ_by_round_and_seed_and_meet_everyone() -> None:
    rounds = [random_matching(6, seed).edges(k) for seed in range(2) for k in range(100)]
    assert len(set(rounds)) == 15  # all perfect matchings of six
    assert random_matching(40, 0).edges(0) != random_matching(40, 1).edges(0)


def test_a_sequence_comes_round_again() -> None:
    varying = sequence(4, [[(1, 0), (3, 2)], ((1, 2),)])
    assert [varying.edges(k) for k in range(3)] == [((0, 1), (2, 3)), ((1, 2),), ((0, 1), (2, 3))]
    assert varying.weights(1)[1].tolist() == [0, 0.5, 0.5, 0]
    assert [varying.exchanges(k) for k in range(2)] == [2.0, 1.0]


def test_generated_by_a_function_or_an_iterator() -> None:
    sets = [[(0, 1)], [(2, 1), (0, 2)]]
    by_function = generated(3, lambda k: sets[k % 2])
    by_iterator = generated(3, cycle(sets))
    assert by_iterator.edges(5) == by_function.edges(5) == ((0, 2), (1, 2))
    assert [by_iterator.edges(k) for k in range(4)] == [by_function.edges(k) for k in range(4)]


def test_static_leaves_silent_edges_out() -> None:
    topology = Topology(3, ((0, 1), (0, 2), (1, 2)), (1.0, 0.0, 5.0))
    assert static(topology).edges(9) == ((0, 1), (1, 2))
    np.testing.assert_allclose(static(family("ring", 3)).weights(0), 1 / 3)


REFUSED: list[tuple[Callable[[], Any], str, str]] = [
    (lambda: random_matching(0), "0 workers", "1 or more"),
    (lambda: random_matching(4, -1), "seed -1", "0 or more"),
    (lambda: random_matching(4).edges(-1), "round -1", "0 or more"),
    (lambda: sequence(3, []), "no edge sets", "one or more"),
    (lambda: sequence(3, [[(0, 1)], [(1, 3)]]), "round 1: edge (1, 3)", "0 to 2"),
    (lambda: sequence(3, [[(0, 1)], [(0, 1)]]), "2 edge sets that leave workers", "connected"),
    (lambda: generated(3, lambda k: [(k, k)]).edges(2), "round 2: edge (2, 2)", "two different"),
    (lambda: generated(3, lambda k: [(0, 1), (1, 0)]).weights(7), "round 7: edge (0, 1)", "once"),
    (lambda: generated(3, lambda k: [(0, 1, 2)]).edges(0), "round 0: edge (0, 1, 2)", "two"),
    (lambda: generated(3, lambda k: None).exchanges(4), "round 4: None", "pairs of workers"),
    (lambda: generated(3, islice(cycle([[(0, 1)]]), 2)).edges(2), "ended after 2 rounds", "every"),
]


@pytest.mark.parametrize(("act", "given_", "expected"), REFUSED)
def test_refuses(act: Callable[[], Any], given_: str, expected: str) -> None:
    with pytest.raises(TopologyError) as caught:
        act()
    assert given_ in caught.value.given
    assert expected in caught.value.expected
    assert caught.value.remedy
