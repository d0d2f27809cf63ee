"""Optimal rates: against an independent table and a closed form, never worse than equal rates."""

from __future__ import annotations

import json
import math
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.errors import MissingExtra, RuntimeFault, TopologyError
from decent.testing import graphs
from decent.topology import Topology, exchanges_needed, family, load, optimize, save

cvxpy = pytest.importorskip("cvxpy")
pytest.importorskip("clarabel")

TABLE = json.loads((Path(__file__).parents[1] / "data" / "sdp.json").read_text())
TWO_BRIDGES = [*combinations(range(8), 2), *combinations(range(8, 16), 2), (0, 8), (1, 9)]


def graph_of(row: dict[str, Any]) -> Topology:
    name = row["graph"].split()[0].rstrip(":")
    if name == "two":
        return Topology.from_edges(16, TWO_BRIDGES)
    return family("tree" if name == "binary" else name, row["n"])


@pytest.mark.parametrize("row", TABLE["cases"], ids=lambda row: row["graph"])
def test_agrees_with_the_reference_table(row: dict[str, Any]) -> None:
    best = optimize(graph_of(row), 1.0, prune=False)
    assert exchanges_needed(best.uniform) == pytest.approx(row["uniform"], rel=1e-6)
    assert exchanges_needed(best.optimised) == pytest.approx(row["optimal"], rel=1e-5)
    assert sum(best.optimised.rates) == pytest.approx(1.0)
    for key in {"chi_1", "chi_2"} & row.keys():
        assert getattr(best.optimised, key) == pytest.approx(row[key], rel=TABLE["tolerance"])
    assert best.gain == pytest.approx(row["uniform"] / row["optimal"], rel=1e-5)


@pytest.mark.parametrize("n", [4, 5, 8])
def test_the_barbell_has_its_closed_form(n: int) -> None:
    """DADAO, JMLR 2025, Lemma 8: two cliques of n joined by one edge."""
    bridge = (4 - n + math.sqrt(2 * n * (n - 1))) / (2 * (8 + n))
    at_bridge = bridge / (n - 2) * (math.sqrt(2 * (n - 1) / n) - 2 / n)
    inside = (1 - bridge - 2 * at_bridge * (n - 1)) / ((n - 1) * (n - 2))
    best = optimize(family("barbell", 2 * n), 1.0, prune=False).optimised
    for (i, j), rate in zip(best.edges, best.rates, strict=True):
        ends = len({n - 1, n} & {i, j})
        assert rate == pytest.approx([inside, at_bridge, bridge][ends], rel=1e-3)


@pytest.mark.parametrize(("name", "n"), [("complete", 8), ("ring", 7), ("star", 6), ("line", 2)])
def test_nothing_is_gained_where_all_edges_are_alike(name: str, n: int) -> None:
    topology = family(name, n, rate=0.5)
    best = optimize(topology)
    assert best.optimised.rates == best.uniform.rates == pytest.approx(topology.rates)
    assert (best.gain, best.dropped) == (1.0, ())


@settings(max_examples=15)
@given(graphs(7).filter(lambda topology: topology.n > 1), st.floats(0.01, 100))
def test_never_worse_than_equal_rates_nor_than_those_it_had(graph: Topology, total: float) -> None:
    best = optimize(graph, total)
    assert sum(best.optimised.rates) == pytest.approx(total)
    assert best.gain >= 1
    least = exchanges_needed(best.optimised)
    assert least <= exchanges_needed(graph) * (1 + 1e-5)
    assert least <= exchanges_needed(optimize(graph, total, prune=False).optimised) * (1 + 1e-5)


def test_fewer_edges_can_be_better_still() -> None:
    """All but the spokes of two stars is left out of two cliques, as in figure 3 of the source."""
    best = optimize(family("barbell", 10), 1.0)
    assert math.sqrt(best.optimised.chi_1 * best.optimised.chi_2) == pytest.approx(10.2, abs=0.05)
    assert len(best.dropped) == 12
    assert not any({4, 5} & set(edge) for edge in best.dropped)
    rates = best.optimised.rates
    assert sorted(set(np.round(rates, 3))) == [0.0, 0.094, 0.245]


def test_a_budget_for_each_worker() -> None:
    limits = [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0]
    best = optimize(family("erdos_renyi", 8, seed=1), per_worker=limits)
    for topology in (best.uniform, best.optimised):
        used = [sum(topology.neighbours(i).values()) for i in range(8)]
        assert all(use <= limit * (1 + 1e-9) for use, limit in zip(used, limits, strict=True))
    assert best.gain > 1.1
    star = optimize(family("star", 5), per_worker=[1.0, 9.0, 9.0, 9.0, 9.0])
    assert star.optimised.rates == pytest.approx([0.25] * 4)


def test_keeps_what_is_known_of_workers_and_links(tmp_path: Path) -> None:
    wan = load("wan8")
    best = optimize(wan).optimised
    assert (best.names, best.links, best.edges) == (wan.names, wan.links, wan.edges)
    assert sum(best.rates) == pytest.approx(sum(wan.rates))
    assert best.source.startswith("rates that minimise √(χ₁χ₂) at 4 in all")
    assert best.source.endswith(wan.source)
    assert 0.0 in best.rates
    for suffix in ("toml", "graphml", "json"):
        save(best, tmp_path / f"best.{suffix}")
        assert load(tmp_path / f"best.{suffix}").rates == best.rates


def test_says_how_far_it_is() -> None:
    said: list[str] = []
    optimize(family("barbell", 6), progress=said.append)
    assert said[0].startswith("7 edges: ")
    assert said[-1].startswith("5 edges: ")


@pytest.mark.parametrize(
    ("topology", "options", "given_", "expected"),
    [
        (family("ring", 3), {"total": 0.0}, "total = 0.0", "greater than 0"),
        (family("ring", 3), {"total": math.nan}, "total = nan", "finite"),
        (family("ring", 3), {"total": math.inf}, "total = inf", "finite"),
        (family("ring", 3), {"per_worker": [1.0]}, "per_worker has 1 entries", "3, one for each"),
        (family("ring", 3), {"per_worker": [1.0, 0.0, 1.0]}, "per_worker = 0.0", "greater"),
        (family("ring", 3), {"total": 1.0, "per_worker": [1.0] * 3}, "a total and", "one of"),
        (family("ring", 65), {}, "65 workers with 65 edges", "at most 64 workers and 512 edges"),
        (family("complete", 40), {}, "40 workers with 780 edges", "at most 64"),
        (Topology(1, (), ()), {}, "1 worker", "2 or more"),
    ],
)
def test_refuses(topology: Topology, options: dict, given_: str, expected: str) -> None:
    with pytest.raises(TopologyError) as caught:
        optimize(topology, **options)
    assert given_ in caught.value.given
    assert expected in caught.value.expected
    assert caught.value.remedy


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    with pytest.raises(MissingExtra, match=r"not installed.*: pip install 'decent\[rates\]'"):
        optimize(family("ring", 4))


def test_a_solver_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    solve = cvxpy.Problem.solve
    few = {"max_iter": 2}
    monkeypatch.setattr(cvxpy.Problem, "solve", lambda self, **more: solve(self, **more, **few))
    with pytest.raises(RuntimeFault, match=r"no optimal rates for 4 workers and 4 edges.*Try"):
        optimize(family("ring", 4))
