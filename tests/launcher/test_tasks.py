"""Runs of a task: what they leave, who dies, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decent.errors import ConfigError, TaskError
from decent.learning.checkpoint import load_state
from launcher.jobs import Job, KillAt, Statuses, config

SCHEDULE = """
from dataclasses import dataclass

@dataclass
class Rare:
    every: float = 10.0

    def contacts(self, view):
        time = self.every
        while True:
            yield time, view.draw_peer()
            time += self.every
"""
FILES = ["endpoint.json", "ledger.jsonl", "log.txt", "metrics.jsonl", "model.safetensors",
         "result.json", "trace.jsonl"]  # fmt: skip

TASK = """
import time
import torch

class Fit:
    '''Fit a constant; each worker has its own.'''

    name = "fit"

    def __init__(self, step_s: float = 0.0, hurry: int = -1):
        self.step_s, self.hurry = step_s, hurry  # one worker may be in a hurry

    def model(self):
        return torch.nn.Linear(1, 1)

    def data(self, worker, workers):
        return [(torch.ones(1), torch.full((1,), float(worker)))] * 8

    def loss(self, model, batch):
        x, y = batch
        if int(y[0]) != self.hurry:
            time.sleep(self.step_s)
        return (model(x) - y).square().mean()

    def evaluate(self, model):
        return {"constant": float(model(torch.ones(1, 1)))}
"""


@pytest.fixture
def task(tmp_path: Path) -> str:
    """A user's own, as it is named in a configuration."""
    file = tmp_path / "my_task.py"
    file.write_text(TASK)
    return f"{file}:Fit"


def test_a_run_of_four(job: Job) -> None:
    outcome = job.run(config(4, steps=60, topology__rate=0.5))
    assert outcome["faults"] == []
    assert not outcome["interrupted"]
    assert outcome["merged_among"] == [0, 1, 2, 3]
    assert outcome["merged"]["accuracy"] > 0.2
    assert outcome["wall_s"] > 0
    run = job.folder / "run"
    merged = load_state(run / "merged.safetensors")
    for me, result in enumerate(outcome["results"]):
        home = run / "workers" / str(me)
        assert sorted(path.name for path in home.iterdir()) == FILES
        assert result["id"] == me
        assert result["steps"] == 60
        assert result["loss"] > 0
        assert result["merged_among"] == [0, 1, 2, 3]
        assert 0 <= result["metrics"]["accuracy"] <= 1
        assert result["stats"]["values_mixed"] > 0
        assert result["stats"]["bytes_sent"] > 0
        own = load_state(home / "model.safetensors")
        assert {name: value.shape for name, value in own.items()} == {
            name: value.shape for name, value in merged.items()
        }
        kinds = {event["event"] for event in job.events(me)}
        assert {"gradient", "merge"} <= kinds
        assert "fault" not in kinds
        metrics = [json.loads(line) for line in (home / "metrics.jsonl").open()]
        assert [each["step"] for each in metrics if "loss" in each][:6] == [10, 20, 30, 40, 50, 60]
    exchanged = [result["stats"]["completed"] for result in outcome["results"]]
    assert sum(exchanged) > 0
    answered = sum(result["stats"]["answered"] for result in outcome["results"])
    assert answered == pytest.approx(sum(exchanged))  # at both ends, or at none


def test_other_ways(job: Job, task: str) -> None:
    """Plain gossip, local sockets, a schedule out of a file, a user's own task."""
    Path(task.partition(":")[0]).with_name("mine.py").write_text(SCHEDULE)
    schedule = f"{job.folder / 'mine.py'}:Rare"
    settings = config(
        3, steps=40, dynamics="gossip", runtime__transport="ipc", task__name=task,
        task__step_s=0.01, schedule__name=schedule, schedule__every=5.0,
    )  # fmt: skip
    outcome = job.run(settings)
    assert outcome["faults"] == []
    assert outcome["merged_among"] == [0, 1, 2]
    assert sum(each["stats"]["started"] for each in outcome["results"]) >= 3 * 5


@pytest.mark.parametrize("state", ["training", "merging"])
def test_a_killed_worker_stops_nobody(job: Job, task: str, state: str) -> None:
    kill = KillAt(2, state, step=20)

    def act(statuses: Statuses) -> None:
        if state == "training" or statuses[0]["state"] == "training":
            kill(statuses)  # where it merges, it waits for the others, who still train

    hurry = 2 if state == "merging" else -1
    options = {"task__name": task, "task__step_s": 0.02, "task__hurry": hurry}
    settings = config(4, steps=100, dynamics="gossip", **options)
    outcome = job.run(settings, act=act)
    assert kill.done
    [fault] = outcome["faults"]
    assert fault["worker"] == 2
    assert 0 < fault["at_s"] < outcome["wall_s"]
    assert fault["what"] == "killed by signal 9 (SIGKILL)"
    assert outcome["merged_among"] == [0, 1, 3]
    living = [each for each in outcome["results"] if each["id"] != 2]
    assert [each["steps"] for each in living] == [100, 100, 100]
    mean = sum(each["metrics"]["constant"] for each in living) / 3
    assert outcome["merged"]["constant"] == pytest.approx(mean, abs=0.02)
    assert outcome["results"][2]["dead"]
    assert outcome["results"][2]["steps"] >= 20
    assert [each["state"] for each in job.seen] == ["done", "done", "dead", "done"]
    for me in (1, 3):
        faults = [event for event in job.events(me) if event["event"] == "fault"]
        assert any(fault.get("peer") == 2 and "died" in fault["why"] for fault in faults)


def test_data_that_is_not_there_is_refused(job: Job) -> None:
    wrong = config(3, task__name="fashion-mnist", task__path="/no/such/folder")
    with pytest.raises(TaskError, match="/no/such/folder"):
        job.run(wrong)


def test_a_port_in_use_is_refused(job: Job) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] - 1  # that of worker 1
        with pytest.raises(ConfigError, match=r"127\.0\.0\.1:\d+: .*in use"):
            job.run(config(3, steps=20, runtime__port=port))
