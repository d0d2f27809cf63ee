"""The final table: everything in it at any width, nothing broken over lines, faults in words."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console, RenderableType

from decent.config import from_dict
from decent.observe import as_dict, faults, picture, results, summarise
from decent.topology import family, load
from observe.outcomes import comparison, outcome


def drawn(what: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def summary(dead: tuple[int, ...] = (), compare: Any = None, **config: Any) -> dict[str, Any]:
    made = from_dict(config)
    topology = made.make_topology()
    return summarise(made, topology, outcome(topology.n, dead), compare)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize("topology", ["ring", "wan8"])
def test_eight_workers_fit_whole(width: int, topology: str) -> None:
    text = drawn(results(summary(topology={"name": topology}, compare=comparison())), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text
    for heading in ("started", "answered", "skipped", "recv", "accuracy"):
        assert heading in text


def test_a_row_has_the_figures_of_its_worker() -> None:
    rows = [" ".join(line.split()) for line in drawn(results(summary())).splitlines()]
    assert "3 1000 0.400 20 21 3 43.0 1.6 1.5 55.0 % 1.400" in rows


def test_narrow_terminals_lose_columns_not_digits() -> None:
    text = drawn(results(summary()), 60)
    assert "recv" not in text
    assert "…" not in text
    assert "started" in text


def test_the_models_are_compared() -> None:
    text = drawn(results(summary(compare=comparison())))
    for label, share in (
        ("mean of local models", "57.5 %"),
        ("merged (once, at the end, 8 of 8 workers)", "95.2 %"),
        ("isolated, then merged", "70.0 %"),
        ("synchronous all-reduce", "96.2 %"),
    ):
        line = next(line for line in text.splitlines() if line.startswith(label))
        assert share in line


def test_faults_are_told_in_words() -> None:
    told = summary(dead=(2,))
    assert faults(told) == [
        "worker 2 died after 3.1 s: killed by signal 9; merged without it",
    ]
    assert faults(told)[0] in drawn(results(told))


def test_an_interrupted_run_says_so() -> None:
    told = summary() | {"interrupted": True, "merged": {}, "merged_among": []}
    text = drawn(results(told))
    assert "interrupted after 12.3 s" in text
    assert "nothing was merged" in text
    assert "merged (" not in text


def test_one_worker_alone() -> None:
    assert "1 worker ·" in drawn(results(summary(workers=1)))


def test_a_topology_is_described_and_drawn() -> None:
    text = drawn(picture(family("ring", 12)))
    assert "χ₁" in text
    assert text.count("╲") == 12


def test_a_topology_for_programs() -> None:
    known = as_dict(load("wan8"))
    assert known["workers"][0] == "washington"
    assert known["edges"][0]["between"] == [0, 1]
    assert known["edges"][0]["round_trip_ms"] == pytest.approx(30)
    assert "round_trip_ms" not in as_dict(family("ring", 3))["edges"][0]
