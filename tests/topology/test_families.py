"""Families: against networkx, what they refuse, and that random ones are seeded and connected."""

from __future__ import annotations

from typing import Any

import networkx as nx
import pytest

from decent.errors import TopologyError
from decent.topology import families, family, to_networkx

ORACLES = [
    ("ring", 7, nx.cycle_graph(7)),
    ("line", 7, nx.path_graph(7)),
    ("star", 7, nx.star_graph(6)),
    ("complete", 7, nx.complete_graph(7)),
    ("grid", 12, nx.grid_2d_graph(3, 4)),
    ("torus", 12, nx.grid_2d_graph(3, 4, periodic=True)),
    ("hypercube", 16, nx.hypercube_graph(4)),
    ("exponential", 12, nx.circulant_graph(12, [1, 2, 4, 8])),
    ("barbell", 10, nx.barbell_graph(5, 0)),
    ("lollipop", 9, nx.lollipop_graph(5, 4)),
    ("tree", 15, nx.balanced_tree(2, 3)),
]

RANDOM = [
    ("erdos_renyi", {}),
    ("erdos_renyi", {"p": 0.2}),
    ("random_geometric", {}),
    ("random_geometric", {"radius": 0.4}),
    ("watts_strogatz", {}),
    ("watts_strogatz", {"degree": 2, "p": 0.5}),
    ("random_regular", {}),
    ("random_regular", {"degree": 13}),
    ("random_regular", {"degree": 15.0}),
]

REFUSED = [
    ("clique", 8, {}, "family 'clique'", "ring, line", "choose one"),
    ("ring", 0, {}, "0 workers", "1 or more", "number"),
    ("ring", 2.5, {}, "2.5 workers", "whole number", "number"),
    ("ring", True, {}, "True workers", "whole number", "number"),
    ("ring", 8, {"p": 0.5}, "option p of the ring", "none", "remove"),
    ("erdos_renyi", 8, {"radius": 0.5}, "option radius", "p", "remove"),
    ("erdos_renyi", 8, {"p": "half"}, "option p = 'half'", "a number", "unquoted"),
    ("erdos_renyi", 8, {"p": 1.5}, "option p = 1.5", "0 to 1", "change p"),
    ("erdos_renyi", 8, {"p": 0.0}, "1000 draws, none connected", "likely", "raise p"),
    ("erdos_renyi", 8, {"seed": -1}, "seed -1", "0 or more", "another"),
    ("random_geometric", 8, {"radius": -1}, "option radius = -1", "0 or more", "change radius"),
    ("watts_strogatz", 8, {"degree": 3}, "option degree = 3", "even", "change degree"),
    ("watts_strogatz", 4, {}, "option degree = 4", "less than the 4 workers", "change degree"),
    ("watts_strogatz", 8, {"p": -0.1}, "option p = -0.1", "0 to 1", "change p"),
    ("random_regular", 3, {}, "option degree = 3", "less than the 3 workers", "change degree"),
    ("random_regular", 8, {"degree": 2.5}, "option degree = 2.5", "whole", "change degree"),
    ("random_regular", 7, {}, "7 workers", "even", "6 or 8 workers"),
    ("random_regular", 8, {"degree": 1}, "none connected", "likely", "degree"),
    ("hypercube", 12, {}, "hypercube of 12 workers", "power of two", "8 or 16 workers"),
    ("grid", 7, {}, "grid of 7 workers", "at least 2", "6 or 8 workers"),
    ("grid", 1, {}, "grid of 1 workers", "at least 2", "possible: 4 workers"),
    ("torus", 8, {}, "torus of 8 workers", "at least 3", "possible: 9 workers"),
    ("torus", 14, {}, "torus of 14 workers", "at least 3", "12 or 15 workers"),
    ("barbell", 7, {}, "barbell of 7 workers", "even", "6 or 8 workers"),
    ("barbell", 2, {}, "barbell of 2 workers", "from 4", "possible: 4 workers"),
    ("lollipop", 8, {"clique": 9}, "option clique = 9", "1 to 8", "change clique"),
    ("ring", 3, {"rate": 0.0}, "workers 1, 2 cannot be reached", "connected", "rate"),
    ("ring", 3, {"rate": -1.0}, "rate -1.0", "0 or more", "silent"),
]


@pytest.mark.parametrize(("name", "n", "oracle"), ORACLES, ids=lambda value: str(value))
def test_is_the_graph_of_that_name(name: str, n: int, oracle: nx.Graph) -> None:
    topology = family(name, n, rate=0.25)
    assert topology.family == name
    assert set(topology.rates) == {0.25}
    assert nx.is_isomorphic(to_networkx(topology), oracle)


@pytest.mark.parametrize(("name", "options"), RANDOM)
def test_random_families_are_seeded_and_connected(name: str, options: dict[str, Any]) -> None:
    drawn = [family(name, 16, seed=seed, **options) for seed in range(10)]
    assert all(nx.is_connected(to_networkx(each)) for each in drawn)
    assert drawn == [family(name, 16, seed=seed, **options) for seed in range(10)]
    if options.get("degree") != 15.0:
        assert len({each.edges for each in drawn}) > 1


@pytest.mark.parametrize("degree", [2, 3, 7, 8, 14, 15])
def test_random_regular_has_its_degree(degree: int) -> None:
    topology = family("random_regular", 16, degree=degree)
    assert {len(topology.neighbours(i)) for i in range(16)} == {degree}


def test_watts_strogatz_keeps_the_number_of_edges() -> None:
    assert len(family("watts_strogatz", 20, degree=4, p=0.7).edges) == 40
    assert len(family("watts_strogatz", 6, degree=4, p=1.0).edges) == 12
    assert family("watts_strogatz", 12, degree=2, p=0.0).edges == family("ring", 12).edges


def test_smallest_graphs() -> None:
    for name in ("ring", "line", "star", "complete", "hypercube", "exponential", "tree"):
        assert family(name, 1).edges == ()
        assert family(name, 2).edges == ((0, 1),)


@pytest.mark.parametrize(("name", "n", "options", "given", "expected", "remedy"), REFUSED)
def test_refuses(
    name: str, n: Any, options: dict[str, Any], given: str, expected: str, remedy: str
) -> None:
    with pytest.raises(TopologyError) as caught:
        family(name, n, **options)
    assert given in caught.value.given
    assert expected in caught.value.expected
    assert remedy in caught.value.remedy


def test_every_family_has_a_line_and_some_graph_of_sixteen() -> None:
    for name, text in families().items():
        assert text
        assert "\n" not in text
        assert family(name, 16).n == 16
