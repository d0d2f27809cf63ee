"""The summary of a run: what is in it, and that strict JSON can hold it whatever came out."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from decent import __version__
from decent.config import Config, from_dict
from decent.observe import summarise
from observe.outcomes import comparison, outcome, result


def summary_of(raw: dict[str, Any], config: Config | None = None, **more: Any) -> dict[str, Any]:
    config = config or Config()
    return summarise(config, config.make_topology(), raw, **more)


def test_a_whole_run() -> None:
    summary = summary_of(outcome(), compare=comparison())
    assert summary["decent"] == __version__
    assert (summary["task"], summary["seed"]) == ("digits", 0)
    assert summary["merged"] == {"accuracy": 0.952, "loss": 0.183}
    assert summary["merged_among"] == list(range(8))
    assert summary["local_mean"]["accuracy"] == pytest.approx(0.575)
    assert summary["compare"] == comparison()
    assert (summary["faults"], summary["interrupted"]) == ([], False)


def test_the_topology_is_that_of_the_run() -> None:
    topology = summary_of(outcome())["topology"]
    graph = Config().make_topology()
    assert (topology["name"], topology["family"]) == ("ring", "ring")
    assert (topology["n"], topology["edges"]) == (8, 8)
    assert topology["models_per_step"] == pytest.approx(0.04)
    assert (topology["chi_1"], topology["chi_2"]) == (graph.chi_1, graph.chi_2)


def test_a_worker() -> None:
    worker = summary_of(outcome())["workers"][3]
    assert (worker["id"], worker["alive"], worker["steps"]) == (3, True, 1000)
    assert worker["exchanges"] == {
        "started": 20,
        "completed": 19,
        "answered": 21.0,
        "abandoned": 1,
        "repeated": None,
        "damaged": None,
        "skipped": {"edge busy": 2, "peer dead": 1},
    }
    assert worker["bytes"] == {"sent": 1_550_000, "received": 1_500_000}
    assert worker["wait_ms"] == {"median": 0.1, "max": 3.2}
    assert worker["mixed_share"] is None


def test_mixed_share_counts_both_ways() -> None:
    worker = summary_of({**outcome(), "parameters": 100})["workers"][0]
    assert worker["mixed_share"] == pytest.approx(1.0)


def test_a_worker_that_died_has_little_and_counts_in_no_mean() -> None:
    summary = summary_of(outcome(dead=[2]))
    worker = summary["workers"][2]
    assert (worker["alive"], worker["steps"], worker["loss"]) == (False, 203, None)
    assert (worker["exchanges"], worker["metrics"]) == (None, {})
    others = [0.4 + 0.05 * i for i in range(8) if i != 2]
    assert summary["local_mean"]["accuracy"] == pytest.approx(sum(others) / 7)
    assert 2 not in summary["merged_among"]


def test_a_worker_without_any_result_is_listed_as_dead() -> None:
    raw = outcome()
    del raw["results"][5]
    workers = summary_of(raw)["workers"]
    assert [worker["alive"] for worker in workers].count(False) == 1
    assert workers[5]["steps"] is None


def test_names_come_from_the_topology() -> None:
    config = from_dict({"topology": {"name": "wan8"}})
    summary = summary_of(outcome(), config)
    assert summary["workers"][0]["name"] == "washington"
    assert summary["topology"]["name"] == "wan8"


def test_what_is_not_finite_becomes_null() -> None:
    raw = outcome()
    raw["results"][0] = {**result(0), "loss": math.nan, "metrics": {"accuracy": math.inf}}
    text = json.dumps(summary_of(raw), allow_nan=False)
    assert json.loads(text)["workers"][0]["loss"] is None


def test_a_script_has_no_task() -> None:
    summary = summary_of(outcome(), script=["train.py", "--lr", "1"])
    assert (summary["task"], summary["script"]) == (None, ["train.py", "--lr", "1"])


def test_nothing_at_all_came_out() -> None:
    summary = summary_of({"results": [], "interrupted": True})
    assert (summary["merged"], summary["local_mean"]) == ({}, {})
    assert summary["interrupted"]
