"""Large graphs with few edges: the same χ₁ and χ₂ as from dense matrices, and no such matrix."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from decent.testing import graphs
from decent.topology import Topology, effective_resistances, family, graph, sparse, spectral_gap

TABLE = json.loads((Path(__file__).parents[1] / "data" / "chi.json").read_text())
LARGE = [
    ("ring", 999, {}, False),
    ("tree", 500, {}, False),
    ("star", 400, {}, False),
    ("grid", 720, {}, False),
    ("lollipop", 300, {"clique": 40}, False),
    ("watts_strogatz", 600, {"p": 0.02}, False),
    ("torus", 400, {}, True),
    ("exponential", 300, {}, True),
    ("random_regular", 1000, {"degree": 3}, True),
    ("erdos_renyi", 300, {}, True),
]


def both_agree(topology: Topology) -> None:
    live = topology.n, topology.edges, topology.rates
    laplacian = topology.laplacian()
    assert sparse.spectral_gap(*live) == pytest.approx(spectral_gap(laplacian), rel=1e-9)
    exact = effective_resistances(laplacian, topology.edges)
    np.testing.assert_allclose(sparse.effective_resistances(*live), exact, rtol=3e-7)
    assert sparse.chi_2(*live) == pytest.approx(exact.max() / 2, rel=3e-7)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['graph']}{row['n']}")
def test_agrees_with_the_reference_table(row: dict) -> None:
    topology = family(row["graph"], row["n"])
    live = topology.n, topology.edges, topology.rates
    assert 1 / sparse.spectral_gap(*live) == pytest.approx(row["chi_1"], rel=1e-9)
    assert sparse.chi_2(*live) == pytest.approx(row["chi_2"], rel=3e-7)


@pytest.mark.parametrize(("name", "n", "options", "well"), LARGE)
def test_agrees_with_dense_matrices(name: str, n: int, options: dict, well: bool) -> None:
    """Both ways there are, each on graphs of its own, also with rates two decades apart."""
    topology = family(name, n, **options)
    matrix = sparse.laplacian(n, topology.edges, topology.rates)
    assert (sparse._band(matrix) is not None) == well
    np.testing.assert_array_equal(matrix.toarray(), topology.laplacian())
    both_agree(topology)
    rates = np.random.default_rng(1).uniform(0.1, 10, len(topology.edges))
    both_agree(topology.with_rates(rates.tolist()))


@settings(max_examples=25)
@given(graphs().filter(lambda topology: topology.n > 2))
def test_agrees_on_any_graph(topology: Topology) -> None:
    both_agree(topology)


def test_a_large_ring_has_its_closed_form() -> None:
    n = 4096
    ring = family("ring", n)
    assert ring.chi_1 == pytest.approx(1 / (2 - 2 * math.cos(2 * math.pi / n)), rel=1e-9)
    assert ring.chi_2 == pytest.approx((n - 1) / n / 2, rel=1e-9)


def test_ten_thousand_workers_need_no_dense_matrix() -> None:
    tracemalloc.start()
    topology = family("random_regular", 10_000, degree=3)
    gap = topology.spectral_gap
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3 - 2 * math.sqrt(2) < gap < 0.18  # Alon and Boppana: it comes close to 3 − 2√2
    assert most < 50e6


def test_the_way_is_chosen_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = family("ring", 40)
    monkeypatch.setattr(graph, "LARGEST_DENSE", 10)
    silent = Topology.from_edges(40, [*dense.edges, (3, 20)], [*dense.rates, 0.0])
    assert (silent.chi_1, silent.chi_2) == pytest.approx((dense.chi_1, dense.chi_2), rel=1e-9)
    assert "_laplacian" not in silent.__dict__
    assert family("complete", 40).chi_1 == pytest.approx(1 / 40)


def test_what_is_disconnected_to_rounding() -> None:
    rates = [1.0] * 49 + [1e-16] + [1.0] * 49
    line = family("line", 100).edges
    assert sparse.spectral_gap(100, line, tuple(rates)) == 0.0
    assert sparse.chi_2(100, line, tuple(rates)) == math.inf
