"""The main job's claims, in virtual time, where they are the same on every machine: digits on a
ring of 8, about 40 models sent per worker in 1,000 steps, one merge; mean of three seeds."""

from __future__ import annotations

import statistics

import pytest

from decent import config
from decent.simulation import simulate

SEEDS = (0, 1, 2)


def accuracies(*overrides: str) -> tuple[float, float, float]:
    """Local, merged, and models sent per worker."""
    local, merged, sent = [], [], []
    for seed in SEEDS:
        outcome = simulate(config.load("digits", [f"seed={seed}", *overrides]))
        results = outcome["results"]
        local.append(statistics.mean(each["metrics"]["accuracy"] for each in results))
        merged.append(outcome["merged"]["accuracy"])
        sent.append(statistics.mean(each["stats"]["models_sent"] for each in results))
    return statistics.mean(local), statistics.mean(merged), statistics.mean(sent)


@pytest.mark.timeout(600)
def test_sparse_gossip_and_one_merge_recover_what_isolation_loses() -> None:
    local, merged, sent = accuracies()
    assert 30 <= sent <= 50
    assert merged >= 0.93
    assert merged >= local + 0.10
    _, isolated, nothing = accuracies("schedule=never")
    assert nothing == 0
    assert isolated <= merged - 0.20
