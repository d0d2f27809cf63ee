"""χ₁, χ₂ and the Laplacian: against an independent table, and their properties on any graph."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.testing import graphs
from decent.topology import Topology, chi_1, chi_2, effective_resistances, family, spectral_gap

TABLE = json.loads((Path(__file__).parents[1] / "data" / "chi.json").read_text())


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row['graph']}{row['n']}")
def test_chi_of_families_agrees_with_the_reference_table(row: dict) -> None:
    topology = family(row["graph"], row["n"])
    assert len(topology.edges) == row["edges"]
    assert topology.chi_1 == pytest.approx(row["chi_1"], rel=1e-9)
    assert topology.chi_2 == pytest.approx(row["chi_2"], rel=1e-9)
    share = 1 / row["edges"]
    uniform = topology.with_rates([share] * row["edges"])
    assert math.sqrt(2 * uniform.chi_1 * uniform.chi_2) == pytest.approx(row["lambda_star"])
    if row.get("edge_list"):
        assert set(topology.edges) == {tuple(edge) for edge in row["edge_list"]}


@given(graphs())
def test_laplacian_is_symmetric_with_rows_that_sum_to_zero(topology: Topology) -> None:
    laplacian = topology.laplacian()
    assert np.abs(laplacian.sum(axis=1)).max() <= 1e-12 * max(1.0, np.abs(laplacian).max())
    assert (laplacian == laplacian.T).all()
    by_definition = np.zeros((topology.n, topology.n))
    for (i, j), rate in zip(topology.edges, topology.rates, strict=True):
        difference = np.zeros(topology.n)
        difference[i], difference[j] = 1, -1
        by_definition += rate * np.outer(difference, difference)
    np.testing.assert_allclose(laplacian, by_definition, atol=1e-10)


@given(graphs(), st.floats(1e-3, 1e3))
def test_chi_scales_inversely_with_the_rates(topology: Topology, c: float) -> None:
    scaled = topology.with_rates([c * rate for rate in topology.rates])
    assert scaled.chi_1 * c == pytest.approx(topology.chi_1)
    assert scaled.chi_2 * c == pytest.approx(topology.chi_2)


@given(graphs())
def test_chi_2_lies_between_its_bounds(topology: Topology) -> None:
    slack = 1 + 1e-9
    assert topology.chi_2 <= topology.chi_1 * slack
    if topology.n > 1:
        assert (topology.n - 1) / np.trace(topology.laplacian()) <= topology.chi_2 * slack


@given(graphs())
def test_resistances_are_those_of_the_pseudoinverse_and_add_up_by_foster(graph: Topology) -> None:
    resistances = effective_resistances(graph.laplacian(), graph.edges)
    inverse = np.linalg.pinv(graph.laplacian())
    expected = [inverse[i, i] + inverse[j, j] - 2 * inverse[i, j] for i, j in graph.edges]
    np.testing.assert_allclose(resistances, expected, rtol=1e-7)
    assert resistances @ np.array(graph.rates) == pytest.approx(graph.n - 1)


@given(graphs(), st.randoms())
def test_chi_does_not_depend_on_the_numbering(topology: Topology, random: st.DataObject) -> None:
    label = list(range(topology.n))
    random.shuffle(label)
    moved = [(label[i], label[j]) for i, j in topology.edges]
    other = Topology.from_edges(topology.n, moved, topology.rates)
    assert other.chi_1 == pytest.approx(topology.chi_1)
    assert other.chi_2 == pytest.approx(topology.chi_2)


def test_one_worker_agrees_already() -> None:
    alone = Topology(1, (), ())
    assert (alone.chi_1, alone.chi_2, alone.spectral_gap) == (0.0, 0.0, math.inf)


def test_closed_forms_hold_for_large_graphs() -> None:
    n = 600
    ring = family("ring", n)
    assert ring.chi_1 == pytest.approx(1 / (2 - 2 * math.cos(2 * math.pi / n)), rel=1e-9)
    assert ring.chi_2 == pytest.approx((n - 1) / n / 2, rel=1e-9)


def test_an_edge_without_rate_does_not_count() -> None:
    silent = Topology(3, ((0, 1), (0, 2), (1, 2)), (1.0, 0.0, 1.0))
    line = family("line", 3)
    assert (silent.chi_1, silent.chi_2) == pytest.approx((line.chi_1, line.chi_2))


def test_functions_take_a_bare_laplacian() -> None:
    laplacian = family("star", 5).laplacian()
    assert spectral_gap(laplacian) == pytest.approx(1.0)
    assert chi_1(laplacian) == pytest.approx(1.0)
    assert chi_2(laplacian, [(0, 1)]) == pytest.approx(0.5)
    assert chi_1(np.zeros((2, 2))) == math.inf
