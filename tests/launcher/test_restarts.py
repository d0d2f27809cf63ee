"""Single workers that are killed and started again, while the others go on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli.conftest import decent

from launcher.jobs import SCRIPT, Job, KillAt, Statuses, config

SLOW = """
for step in range(gossip.steps, 60):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    print("step", step, gossip.resumed, flush=True)
    gossip.step()
    time.sleep(0.04)
print("merged", gossip.merge(), flush=True)
"""


def stepped(job: Job, worker: int) -> list[int]:
    lines = [line.split() for line in job.said(worker)]
    return [int(words[1]) for words in lines if words[0] == "step"]


@pytest.mark.parametrize("every", [10, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_worker_comes_back(job: Job, every: int) -> None:
    """From its checkpoint, or from a neighbour's parameters; all are merged, and nobody else was
    disturbed."""
    kill, seen = KillAt(1, step=25), []

    def act(statuses: Statuses) -> None:
        kill(statuses)
        seen.append([status["pid"] for status in statuses])

    settings = config(
        4, topology__rate=1.0, runtime__checkpoint_every=every, runtime__restarts=1,
        runtime__dead_s=60,
    )  # fmt: skip
    outcome = job.run(settings, SCRIPT + SLOW, act=act)
    assert kill.done
    assert outcome["faults"] == []
    [restart] = outcome["restarts"]
    assert restart["worker"] == 1
    assert restart["what"] == "killed by signal 9 (SIGKILL)"
    assert outcome["merged_among"] == [0, 1, 2, 3]
    for me, result in enumerate(outcome["results"]):
        assert result["steps"] == 60
        assert len({pids[me] for pids in seen}) == (2 if me == 1 else 1)
        assert stepped(job, me) == list(range(60)) or me == 1
    steps = stepped(job, 1)
    [back] = [k for k in range(1, len(steps)) if steps[k] != steps[k - 1] + 1]
    if every:
        assert steps[back] <= 25
        assert "True" in job.log(1)
    else:
        assert steps[back] > steps[back - 1]  # where a neighbour was
    assert steps[-1] == 59
    for me in (0, 2):
        events = [event for event in job.events(me) if event["event"] == "fault"]
        assert any(event["what"] == "peer restarted" and event["peer"] == 1 for event in events)
    completed: list[Any] = [event["event"] for event in job.events(1)]
    assert completed.count("apply") > 5
    audited = decent("audit", job.folder / "run")
    assert audited.exit_code == 0, audited.output


def test_not_more_often_than_allowed(job: Job) -> None:
    """One that fails each time; the others merge without it."""
    failing = SCRIPT + "if me == 1: raise ValueError('again')\n" + SLOW.replace("0.04", "0.1")
    outcome = job.run(config(3, runtime__restarts=2, runtime__dead_s=4.0), failing)
    assert [each["worker"] for each in outcome["restarts"]] == [1, 1]
    [fault] = outcome["faults"]
    assert "ValueError: again" in fault["what"]
    assert outcome["merged_among"] == [0, 2]


def test_who_comes_back_too_late_is_dismissed(job: Job) -> None:
    """The others are done; it does not wait for them, nor is there a second result."""
    late = SCRIPT.replace("model =", """
from pathlib import Path
from decent.runtime.world import current
if current().rejoins:
    while not Path(sys.argv[1]).exists(): time.sleep(0.1)
model =""", 1)  # fmt: skip
    code = late + "if me == 1: raise ValueError('once')\n" + SLOW.replace("60", "20")
    merged = job.folder / "run/merged.safetensors"
    settings = config(3, runtime__restarts=1, runtime__dead_s=3.0)
    outcome = job.run(settings, code, [str(merged)])
    [fault] = outcome["faults"]
    assert fault["worker"] == 1
    assert "too late" in fault["what"]
    assert outcome["merged_among"] == [0, 2]


def test_one_kept_apart_comes_back_whenever(job: Job) -> None:
    """The others are done already; nothing is merged, and nobody has listened."""
    late = """
from pathlib import Path
home = gossip.world.folder / "workers"
while me == 1 and not gossip.resumed and not all(
    (home / other / "result.json").exists() for other in "02"
): time.sleep(0.1)
"""
    dying = 'if me == 1 and step == 15 and not gossip.resumed: raise ValueError("once")'
    code = SCRIPT + late + SLOW.replace("60", "20").replace("0.04)", f"0)\n    {dying}")
    settings = config(
        3, merge="apart", schedule="never", runtime__checkpoint_every=5, runtime__restarts=1
    )
    outcome = job.run(settings, code)
    assert outcome["faults"] == []
    assert [each["worker"] for each in outcome["restarts"]] == [1]
    assert outcome["merged_among"] == []
    steps = stepped(job, 1)
    assert steps[:16] == list(range(16))
    assert steps[16:] in (list(range(10, 20)), list(range(15, 20)))
    for me in range(3):
        home = job.folder / "run/workers" / str(me)
        assert job.said(me)[-1] == f"merged [{me}]"
        assert (home / "model.safetensors").is_file()
        assert not (home / "endpoint.json").exists()
    assert not (job.folder / "run/merged.safetensors").exists()


def test_from_the_command_line(job: Job) -> None:
    done = decent(
        "launch", "-n", "2", "--restarts", "3", "--set", "steps=5", "-o", job.folder / "o"
    )
    assert done.exit_code == 0, done.output
    summary = json.loads((job.folder / "o/summary.json").read_text())
    assert summary["restarts"] == []
    assert "restarts = 3" in (job.folder / "o/config.toml").read_text()
