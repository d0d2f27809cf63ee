"""What does not add up is named. Ledgers are those of clusters in virtual time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decent.chaos.verdict import judge
from decent.dynamics import Gossip
from decent.observe.chaos import headline
from decent.schedule import Poisson
from decent.testing import cluster, kill
from decent.topology import family
from decent.worker import Worker

N = 4


def no_step(worker: Worker) -> None:
    pass


def storm(*killed: int) -> Any:
    return SimpleNamespace(
        killed=[*killed], injected=[], missed=[], hits=Counter,
        messages=lambda: {"passed": 0, "dropped": 0},
    )  # fmt: skip


def run(folder: Path, *killed: int) -> dict[str, Any]:
    """A run in virtual time, as its folder and outcome."""
    books: dict[int, list[dict[str, Any]]] = {}
    c = cluster(
        family("complete", N), Gossip(), Poisson(), steps=20, ledgers=books, learner=no_step,
        faults=[kill(worker, 8.0) for worker in killed],
    )  # fmt: skip
    c.run(200.0)
    assert c.finished()
    for worker, lines in books.items():
        home = folder / "workers" / str(worker)
        home.mkdir(parents=True)
        (home / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    results = [{"id": me, "merged_among": list(c.merges[me].among)} for me in c.alive]
    faults = [{"worker": worker, "at_s": 8.0, "what": "gone"} for worker in killed]
    return {"results": results, "faults": faults}


def test_all_well(tmp_path: Path) -> None:
    found = judge(tmp_path, N, storm(2), run(tmp_path, 2), "")
    assert found["ok"], found["culprits"]
    assert found["survivors"] == found["merged_among"] == [0, 1, 3]
    assert "the survivors are merged" in headline(found)


def culprit(found: dict[str, Any]) -> str:
    assert not found["ok"]
    assert "findings" in headline(found)
    return " · ".join(found["culprits"])


def test_one_that_nobody_killed(tmp_path: Path) -> None:
    text = culprit(judge(tmp_path, N, storm(), run(tmp_path, 2), ""))
    assert "worker 2 ended after 8.0 s, and nobody killed it: gone" in text
    assert "worker 2 lives, and has not closed its books" in text


def test_a_hang(tmp_path: Path) -> None:
    assert "hang: x" in culprit(judge(tmp_path, N, storm(2), run(tmp_path, 2), "hang: x"))


def test_no_books(tmp_path: Path) -> None:
    assert "no ledger" in culprit(judge(tmp_path, N, storm(), {}, "hang"))


@pytest.mark.parametrize("among", [[0, 1], []])
def test_survivors_that_were_not_merged(tmp_path: Path, among: list[int]) -> None:
    outcome = run(tmp_path, 2)
    outcome["results"][0]["merged_among"] = among
    text = culprit(judge(tmp_path, N, storm(2), outcome, ""))
    assert f"worker 0 was merged among {among}, without" in text
    assert "not all were merged among the same" in text


def test_books_that_do_not_balance(tmp_path: Path) -> None:
    outcome = run(tmp_path, 2)
    ledger = tmp_path / "workers/1/ledger.jsonl"
    kept, gone = [], []
    for line in ledger.read_text().splitlines():
        event = json.loads(line)
        lost = event["event"] == "exchange" and event["peer"] == 0 and not gone
        (gone if lost else kept).append(line)
    ledger.write_text("\n".join(kept) + "\n")
    assert "edge 0–1" in culprit(judge(tmp_path, N, storm(2), outcome, ""))
