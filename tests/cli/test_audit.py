"""`decent audit` on the folders of real simulations, and on what is not one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import decent, process

SMALL = ["-n", "4", "--set", "steps=120", "--set", "topology.rate=0.5", "-o", "run"]


def simulate(*more: str) -> None:
    done = decent("simulate", "digits", *SMALL, *more)
    assert done.exit_code == 0, done.output


def edit(worker: int, change: Any) -> None:
    file = Path(f"run/workers/{worker}/ledger.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    change(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("dynamics", ["gossip", "a2cid2"])
def test_a_run_that_balances_has_one_line(here: Path, dynamics: str) -> None:
    simulate("--set", f"dynamics={dynamics}", "--set", "simulation.loss=0.1")
    done = process("audit", "run")
    assert done.returncode == 0, done.stdout + done.stderr
    [line] = done.stdout.splitlines()
    slots = "x" if dynamics == "gossip" else "0.5 x + 0.5 x̃"
    assert line.startswith("balances: 4 workers, 480 local steps, ")
    assert f" on 4 edges; Σ({slots}) off by " in line


def test_what_does_not_balance_is_told_worst_first(here: Path) -> None:
    simulate()

    def change(lines: list[dict[str, Any]]) -> None:
        mine = [line for line in lines if line["event"] == "exchange" and line["peer"] == 3]
        mine[2]["moved"][0][0] += 0.25

    edit(2, change)
    done = decent("audit", "run")
    assert done.exit_code == 1
    first, *rest = done.stdout.splitlines()
    assert first.startswith("does not balance: 4 workers, ")
    assert rest[0].startswith("edge 2–3, exchange ")
    assert "the ends mixed different values" in rest[0]
    [table] = [line for line in rest if line.lstrip().startswith("2–3 ")]
    assert "0.25" in table
    assert rest.index(table) < min(
        rest.index(line) for line in rest if line.lstrip().startswith(("0–1 ", "1–2 ", "0–3 "))
    )
    known = json.loads(decent("audit", "run", "--json").stdout)
    assert not known["balanced"]
    assert known["culprits"][0]["exchange"]["starter"] in (2, 3)
    assert known["edges"][0]["workers"] == [2, 3]


def test_all_edges_on_request_and_as_json(here: Path) -> None:
    simulate("--set", "runtime.chunk_kib=8")
    text = decent("audit", "run", "--edges").stdout
    assert all(f" {edge} " in text for edge in ("0–1", "1–2", "2–3", "0–3"))
    done = decent("audit", "run", "--json")
    assert done.exit_code == 0
    known = json.loads(done.stdout)
    assert known["balanced"]
    assert (known["known"], known["closed"], known["steps"]) == ([0, 1, 2, 3], [0, 1, 2, 3], 480)
    assert known["off"] <= known["bound"]
    assert all(edge["chunks"] == 5 * edge["exchanges"] for edge in known["edges"])
    assert known["settled"] == known["culprits"] == known["unclosed"] == []


def test_a_ledger_that_was_cut_off_is_named(here: Path) -> None:
    simulate()
    file = Path("run/workers/1/ledger.jsonl")
    file.write_text(file.read_text()[:-2500])
    done = decent("audit", "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip().endswith("left open by worker 1")
    assert "settled by rule" in done.stdout
    text = decent("audit", "run", "--edges").stdout
    assert "at one end alone" in text
    assert "worker 1 has not closed its books" in text


@pytest.mark.parametrize("what", ["nothing", "none", "ideal", "broken"])
def test_what_has_no_ledger_exits_2(here: Path, what: str) -> None:
    if what == "none":
        simulate("--set", "runtime.ledger=false")
    elif what == "ideal":
        simulate("--ideal")
    elif what == "broken":
        simulate()
        Path("run/workers/0/ledger.jsonl").write_text("not JSON\n")
    done = decent("audit", "run")
    assert done.exit_code == 2
    [line] = done.stderr.splitlines()
    wanted = "ledger.jsonl: Expecting value" if what == "broken" else "no ledger in it"
    assert wanted in line
