"""`decent topology optimize` and `show` on large graphs: real processes, and their bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import decent, process
from cli.test_help import HEAVY
from decent.topology import load

pytest.importorskip("cvxpy")
pytest.importorskip("clarabel")


def test_optimize_prints_a_table_and_says_how_far_it_is() -> None:
    done = process("topology", "optimize", "barbell", "-n", "6", "--total", "2")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        "7 edges", "6 edges", "5 edges",
    ]  # fmt: skip
    for words in ("all edges alike  optimised  ratio", "√(χ₁χ₂), accelerated", "2 of 7", "2–3"):
        assert words in done.stdout


def test_optimize_writes_what_it_found_and_prints_it_as_json(here: Path) -> None:
    done = decent("topology", "optimize", "wan8", "-o", "fast.toml", "--json")
    assert done.exit_code == 0, done.stderr
    known = json.loads(done.stdout)
    best = load("fast.toml")
    assert [each["rate"] for each in known["topology"]["edges"]] == list(best.rates)
    assert known["total"] == pytest.approx(4.0)
    assert known["gain"] == pytest.approx(
        known["uniform"]["exchanges_needed"] / known["optimised"]["exchanges_needed"]
    )
    assert len(known["dropped"]) == best.rates.count(0.0) == 2
    assert best.names == load("wan8").names
    assert best.source.startswith("rates that minimise")


def test_optimize_can_keep_all_edges() -> None:
    line = ("topology", "optimize", "barbell", "-n", "6", "--keep-edges", "--json")
    assert json.loads(decent(*line).stdout)["dropped"] == []


BAD = {
    "nothing to spend": (["ring", "--total", "0"], ["total = 0.0", "greater than 0"]),
    "not a number": (["ring", "--total", "nan"], ["total = nan", "finite"]),
    "unknown": (["rnig"], ["no topology 'rnig'", "Did you mean ring?"]),
    "nonsense in a file": (["odd.toml"], ["odd.toml: not readable as TOML", "Correct the line"]),
    "too large": (["ring", "-n", "100"], ["100 workers", "at most 64 workers"]),
    "one worker": (["ring", "-n", "1"], ["1 worker", "2 or more"]),
    "file of another type": (["ring", "-o", "x.yaml"], ["x.yaml", ".toml, .graphml, .json"]),
    "file that is there": (["ring", "-o", "odd.toml"], ["odd.toml: it exists", "a new file"]),
    "file in a file": (["ring", "-o", "odd.toml/x.toml"], ["odd.toml/x.toml", "Check the path"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(case: str, here: Path) -> None:
    Path("odd.toml").write_text("nonsense")
    line, words = BAD[case]
    done = decent("topology", "optimize", *line)
    assert done.exit_code == 2, done.stderr
    assert done.stdout == ""
    error = done.stderr.splitlines()[-1]
    assert error.startswith("decent: error: ")
    assert [word for word in words if word not in error] == []
    assert Path("odd.toml").read_text() == "nonsense"
    assert [path.name for path in here.iterdir()] == ["odd.toml"]


def test_help_imports_nothing_heavy() -> None:
    done = process("topology", "optimize", "--help", options=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert not imported & {*HEAVY, "cvxpy", "scipy"}


def test_show_a_graph_of_many_workers() -> None:
    done = process("topology", "show", "random_regular", "-n", "2000")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "χ₁ and χ₂ of 2000 workers\n"
    assert "spectral gap λ₂" in done.stdout
    assert len(done.stdout.splitlines()) < 20
