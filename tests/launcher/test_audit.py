"""Ledgers of real processes balance: to the merge, when stopped, when a worker is killed."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from cli.conftest import decent
from msgspec.structs import replace

from decent.config import Config
from launcher.jobs import Job, KillAt, Statuses, config


def audited(job: Job, code: int = 0) -> str:
    done = decent("audit", job.folder / "run")
    assert done.exit_code == code, done.output
    return done.stdout


@pytest.mark.parametrize("dynamics", ["gossip", "a2cid2"])
def test_a_run_of_three_balances(job: Job, dynamics: str) -> None:
    settings = config(
        3, steps=150, topology__rate=1.0, runtime__chunk_kib=8, dynamics=dynamics
    )  # fmt: skip
    outcome = job.run(settings)
    assert outcome["faults"] == []
    text = audited(job)
    assert text.startswith("balances: 3 workers, 450 local steps, ")
    exchanges = sum(result["stats"]["completed"] for result in outcome["results"])
    assert exchanges > 10
    assert f" {exchanges:,} exchanges on 3 edges" in text


def test_a_part_in_account_balances(job: Job) -> None:
    """Of a model of 38,000 values not all local steps are measured."""
    job.run(config(3, steps=100, topology__rate=1.0, task__hidden=500, runtime__chunk_kib=32))
    audited(job)
    kept = {
        tuple(map(tuple, event["kept"]))
        for me in range(3)
        for event in job.ledger(me)
        if event["event"] == "opened"
    }
    [parts] = kept
    assert sum(length for _, length in parts) < 25_000


@pytest.mark.slow
@pytest.mark.parametrize("state", ["training", "merging"])
def test_survivors_balance(job: Job, state: str) -> None:
    settings = config(3, steps=3000 if state == "training" else 300, topology__rate=1.0)
    job.run(settings, act=KillAt(1, state, 200))
    assert "left open by worker 1" in audited(job)


def test_what_was_interrupted_balances(job: Job) -> None:
    struck = []

    def act(statuses: Statuses) -> None:
        if not struck and min(status["step"] for status in statuses) > 50:
            struck.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    outcome = job.run(_long(config(3, topology__rate=1.0)), act=act)
    assert outcome["interrupted"]
    assert "left open" not in audited(job)


def _long(given: Config) -> Config:
    return replace(given, steps=100_000)


SCRIPT = """
import torch
import decent

model = torch.nn.Linear(40, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
gossip = decent.Gossip(model, optimizer)
for step in range(120):
    optimizer.zero_grad()
    model(torch.randn(8, 40)).square().mean().backward()
    optimizer.step()
    if step == 60 and gossip.world.me == 1:
        with torch.no_grad():
            model.weight[0, 3] += 0.5
    gossip.step()
gossip.merge()
gossip.close()
"""


def test_parameters_changed_outside_of_the_optimizer_are_named(job: Job) -> None:
    job.run(config(3, topology__rate=1.0), script=SCRIPT)
    text = audited(job, code=1)
    [line] = [line for line in text.splitlines() if line.startswith("worker 1, steps 0–1")]
    assert "its state was changed by neither steps, exchanges nor drift" in line


def test_no_ledger_where_none_is_wanted(job: Job) -> None:
    job.run(config(2, steps=20, runtime__ledger="false"))
    assert not list(job.folder.glob("run/workers/*/ledger.jsonl"))
    assert "no ledger in it" in _refused(job)


def _refused(job: Job) -> str:
    done: Any = decent("audit", job.folder / "run")
    assert done.exit_code == 2
    return str(done.stderr)
