"""The Topology object: what it refuses, and with which words; rates and neighbours."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.errors import TopologyError
from decent.testing import graphs
from decent.topology import Link, Topology, describe, family, load, sketch

LINE = {"n": 3, "edges": ((0, 1), (1, 2)), "rates": (1.0, 1.0)}

REFUSED = [
    ({"n": 0, "edges": (), "rates": ()}, "0 workers", "1 or more", "number of workers"),
    ({"edges": ((0, 1), (1, 3))}, "edge (1, 3)", "0 to 2", "3 workers"),
    ({"edges": ((-1, 1), (1, 2))}, "edge (-1, 1)", "0 to 2", "count from 0"),
    ({"edges": ((0, 1), (2, 2))}, "edge (2, 2)", "two different", "remove"),
    ({"edges": ((1, 0), (1, 2))}, "out of order", "i < j", "from_edges"),
    ({"edges": ((1, 2), (0, 1))}, "out of order", "sorted", "from_edges"),
    ({"edges": ((0, 1), (0, 1))}, "(0, 1) is given twice", "once", "add the two rates"),
    ({"rates": (1.0,)}, "rates has 1 entries", "2, one for each edge", "in their order"),
    ({"rates": (1.0, -1.0)}, "rate -1.0 of edge (1, 2)", "0 or more", "silent"),
    ({"rates": (1.0, math.nan)}, "rate nan", "finite", "silent"),
    ({"rates": (1.0, math.inf)}, "rate inf", "finite", "silent"),
    ({"rates": (1.0, 0.0)}, "worker 2 cannot be reached from worker 0", "connected", "towards 2"),
    ({"n": 20}, "3, 4, 5, 6, 7, 8, 9, 10 and 9 more cannot", "connected", "add an edge"),
    ({"names": ("a", "b")}, "names has 2 entries", "3, one for each worker", "give one"),
    ({"names": ("a", "b", "a")}, "'a' is given twice", "of its own", "rename"),
    ({"addresses": (None,)}, "addresses has 1 entries", "3", "give one"),
    ({"links": (Link(0.1),)}, "links has 1 entries", "2", "give one"),
]


@pytest.mark.parametrize(("change", "given_", "expected", "remedy"), REFUSED)
def test_refuses(change: dict[str, Any], given_: str, expected: str, remedy: str) -> None:
    with pytest.raises(TopologyError) as caught:
        Topology(**{**LINE, **change})
    assert given_ in caught.value.given
    assert expected in caught.value.expected
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("link", [(-1.0,), (math.nan,), (math.inf,), (0.1, 0.0), (0.1, math.nan)])
def test_refuses_impossible_links(link: tuple[float, ...]) -> None:
    with pytest.raises(TopologyError, match=r"latency_s|bandwidth_bps") as caught:
        Link(*link)
    assert caught.value.expected
    assert caught.value.remedy


def test_from_edges_sorts_edges_with_what_follows_them() -> None:
    links = [Link(0.2), Link(0.1)]
    topology = Topology.from_edges(3, [(2, 1), (1, 0)], [2.0, 1.0], links=links)
    assert topology.edges == ((0, 1), (1, 2))
    assert topology.rates == (1.0, 2.0)
    assert topology.links == (Link(0.1), Link(0.2))
    with pytest.raises(TopologyError, match=r"rates has 1 entries: expected 2"):
        Topology.from_edges(3, [(2, 1), (1, 0)], [2.0])


@given(graphs())
def test_neighbours_and_edge_index_tell_of_every_edge(topology: Topology) -> None:
    for (i, j), rate in zip(topology.edges, topology.rates, strict=True):
        assert topology.neighbours(i)[j] == topology.neighbours(j)[i] == rate
    assert sum(len(topology.neighbours(i)) for i in range(topology.n)) == 2 * len(topology.edges)
    for i in range(topology.n):
        assert list(topology.neighbours(i)) == sorted(topology.neighbours(i))
    assert [topology.edge_index[edge] for edge in topology.edges] == [*range(len(topology.edges))]


@pytest.mark.parametrize("worker", [-1, 3])
def test_neighbours_of_nobody(worker: int) -> None:
    with pytest.raises(TopologyError, match=rf"worker {worker}: .*0 to 2.*count from 0"):
        Topology(**LINE).neighbours(worker)


@given(graphs().filter(lambda t: t.n > 1), st.floats(1e-3, 1e3))
def test_models_per_worker_scales_all_rates_alike(topology: Topology, models: float) -> None:
    scaled = topology.with_models_per_worker(models)
    assert scaled.models_per_worker() == pytest.approx(models)
    ratios = [new / old for new, old in zip(scaled.rates, topology.rates, strict=True)]
    assert ratios == pytest.approx([ratios[0]] * len(ratios))


def test_models_per_worker_counts_both_ends() -> None:
    assert family("ring", 16, rate=0.5).models_per_worker() == 1.0
    alone = Topology(1, (), ())
    assert alone.with_models_per_worker(2.0) == alone
    assert alone.models_per_worker() == 0.0


@pytest.mark.parametrize("models", [0.0, -1.0, math.nan, math.inf])
def test_refuses_impossible_models_per_worker(models: float) -> None:
    with pytest.raises(TopologyError, match=r"models_per_worker = .*greater than 0.*schedule"):
        Topology(**LINE).with_models_per_worker(models)


def test_laplacian_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        Topology(**LINE).laplacian()[0, 0] = 1.0


def test_description_and_sketch() -> None:
    rows = dict(describe(load("wan8")))
    assert rows["workers"] == "8"
    assert rows["round trip"] == "15 to 185 ms"
    assert "IBM" in rows["source"]
    assert dict(describe(Topology(1, (), ())))["edges"] == "0"
    lines = sketch(family("line", 3)).splitlines()
    assert lines[:3] == ["0  ╲ ██··", "1  ██╲ ██", "2  ··██╲ "]
    unequal = Topology(3, ((0, 1), (0, 2), (1, 2)), (1.0, 0.0, 4.0))
    assert sketch(unequal).splitlines()[:2] == ["0  ╲ ░░··", "1  ░░╲ ██"]
    assert sketch(family("ring", 33)) == ""


def test_importing_needs_neither_networkx_nor_torch() -> None:
    code = "import sys, decent.topology; print({'networkx', 'torch', 'zmq'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
