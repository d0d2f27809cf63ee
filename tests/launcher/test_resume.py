"""Runs whose processes are all killed, launcher included, and that are gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import decent

from decent.errors import ConfigError
from decent.folder import write_json
from decent.launcher import resumable
from decent.launcher.resume import locked
from decent.runtime.checkpoint import Checkpoints, lines
from launcher.jobs import PATIENCE_S, SCRIPT, Job, Statuses, alive, below, config

COMMAND = "import sys; from decent.cli import main; main(sys.argv[1:], prog_name='decent')"
LOOP = (
    SCRIPT.replace("SGD", "Adam")
    + """
class Count:
    def __init__(self): self.seen = []
    def state_dict(self): return {"seen": self.seen}
    def load_state_dict(self, state): self.seen = state["seen"]

count = Count()
gossip.keep(count=count)
for step in range(gossip.steps, int(sys.argv[1])):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).square().mean().backward()
    optimizer.step()
    count.seen.append(step)
    gossip.step()
    time.sleep(float(sys.argv[2]))
assert count.seen == list(range(int(sys.argv[1])))
print("merged", gossip.merge(), gossip.resumed, flush=True)
"""
)


def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "launch", *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def until(condition: Callable[[], Any], process: subprocess.Popen[str], what: str) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s, f"not in {PATIENCE_S:.0f} s: {what}"
        time.sleep(0.05)


def kill_all(process: subprocess.Popen[str]) -> None:
    """-9 to the launcher and whatever it has started."""
    pids = {process.pid} | below(process.pid)
    for pid in pids:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)


def cut(folder: Path, workers: int) -> int:
    """The newest line in the folder of a run; 0 if there is none."""
    found = lines(folder, workers)
    return min((span.cut for span in found.values()), default=0) if len(found) == workers else 0


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_all_are_killed_and_go_on(tmp_path: Path, times: int) -> None:
    """The summary is complete, and the books balance over the whole."""
    out = tmp_path / "out"
    steps = 500
    settings = [f"steps={steps}", "topology.rate=0.5", "runtime.chunk_kib=8"]
    given = [part for setting in settings for part in ("--set", setting)]
    process = run(tmp_path, "-n", "4", "-o", "out", "--checkpoint-every", "40", *given)
    for _ in range(times):
        reached = cut(out, 4)
        until(lambda: cut(out, 4) >= reached + 2, process, "two checkpoints")  # noqa: B023
        kill_all(process)
        assert not (out / "summary.json").exists()
        process = run(tmp_path, "--resume", "out", "--json")
    said, errors = process.communicate(timeout=2 * PATIENCE_S)
    assert process.returncode == 0, errors
    summary = json.loads(said)
    assert summary == json.loads((out / "summary.json").read_text())
    assert summary["faults"] == []
    assert summary["merged_among"] == [0, 1, 2, 3]
    assert summary["merged"]["accuracy"] > 0.3
    assert [each["steps"] for each in summary["workers"]] == [steps] * 4
    assert all(each["checkpoints"]["taken"] > 0 for each in summary["workers"])
    exchanges = [each["exchanges"] for each in summary["workers"]]
    assert sum(each["abandoned"] for each in exchanges) == 0
    assert sum(each["completed"] for each in exchanges) == pytest.approx(
        sum(each["answered"] for each in exchanges)
    )
    for me in range(4):
        home = out / "workers" / str(me)
        lines_ = (home / "metrics.jsonl").read_text().splitlines()
        told = [json.loads(line)["step"] for line in lines_ if "loss" in line]
        assert told[: steps // 10] == list(range(10, steps + 1, 10))
        events = [json.loads(line) for line in (home / "trace.jsonl").read_text().splitlines()]
        assert not [event for event in events if event["event"] == "fault"]
        done = [event["steps"] for event in events if event["event"] == "gradient"]
        assert done == sorted(set(done))
    audited = decent("audit", out)
    assert audited.exit_code == 0, audited.output
    assert audited.stdout.startswith("balances: 4 workers, 2,000 local steps, ")
    assert "one end alone" not in audited.stdout
    refused = decent("launch", "--resume", out)
    assert refused.exit_code == 2
    assert "this run has come to its end" in refused.stderr


def test_a_script_goes_on_and_what_it_keeps(tmp_path: Path, job: Job) -> None:
    """Interrupted, while one worker waits in the merge; and then to the end."""
    struck = []

    def act(statuses: Statuses) -> None:
        if not struck and cut(job.folder / "run", 3) >= 3:
            struck.append(os.kill(os.getpid(), signal.SIGINT))

    settings = config(3, topology__rate=1.0, runtime__checkpoint_every=20)
    outcome = job.run(settings, LOOP, ["300", "0.01"], act=act)
    assert outcome["interrupted"]
    (job.folder / "run/config.toml").write_text(settings.to_toml())
    done = decent("launch", "--resume", job.folder / "run")
    assert done.exit_code == 0, done.output
    for me in range(3):
        assert job.said(me)[-1] == "merged [0, 1, 2] True"
    assert decent("audit", job.folder / "run").exit_code == 0


def test_each_kept_apart_goes_on_by_itself(job: Job) -> None:
    """From its own newest checkpoint; one that has none begins anew."""
    run_folder, struck = job.folder / "run", []

    def act(statuses: Statuses) -> None:
        if not struck and all(Checkpoints(run_folder, me, 1).spans() for me in (0, 1)):
            struck.append(os.kill(os.getpid(), signal.SIGINT))

    settings = config(3, merge="apart", schedule="never", runtime__checkpoint_every=20)
    pace = "(0.02, 0.01, 0.3)[me] * ('+' not in gossip.world.run)"
    uneven = LOOP.replace("float(sys.argv[2])", pace)
    assert job.run(settings, uneven, ["300", "0"], act=act)["interrupted"]
    (run_folder / "config.toml").write_text(settings.to_toml())
    done = decent("launch", "--resume", run_folder)
    assert done.exit_code == 0, done.output
    assert "3 workers, kept apart" in done.stdout
    said = [job.said(me)[-1] for me in range(3)]
    assert said == ["merged [0] True", "merged [1] True", "merged [2] False"]


def test_a_worker_that_has_finished_takes_checkpoints_for_the_others(job: Job) -> None:
    """It waits in the merge; nobody's exchange hangs on it."""
    uneven = LOOP.replace("float(sys.argv[2])", "0.0 if me == 0 else 0.01")
    settings = config(2, topology__rate=2.0, runtime__checkpoint_every=30)
    outcome = job.run(settings, uneven, ["200", "0"])
    assert outcome["merged_among"] == [0, 1]
    assert [result["stats"]["abandoned"] for result in outcome["results"]] == [0, 0]
    late = lines(job.folder / "run", 2)
    assert len(late) == 2


def folder(tmp_path: Path, **summary: Any) -> Path:
    out = tmp_path / "out"
    write_json(out / "run.json", {
        "id": "ab", "workers": 3, "script": None, "arguments": [], "resumed": 0,
    })  # fmt: skip
    (out / "config.toml").write_text("workers = 3\n")
    if summary:
        write_json(out / "summary.json", summary)
    return out


def keep(out: Path, worker: int, *cuts: int) -> None:
    home = out / "workers" / str(worker) / "checkpoints"
    home.mkdir(parents=True, exist_ok=True)
    for k in cuts:
        for part in ("gossip.safetensors", "training.pt"):
            (home / f"{k - 1:08d}-{k:08d}.{part}").write_text("")


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    def refused(*words: str) -> None:
        done = decent("launch", "--resume", tmp_path / "out")
        assert done.exit_code == 2, done.output
        for word in words:
            assert word in done.stderr
        assert not (tmp_path / "out" / "workers" / "0" / "log.txt").exists()

    refused("not the folder of a run")
    (tmp_path / "out").mkdir()
    refused("not the folder of a run", "config.toml and run.json")
    ended = {"faults": [], "merged_among": [0, 1, 2], "interrupted": False}
    folder(tmp_path, **ended)
    refused("this run has come to its end")
    folder(tmp_path, **ended | {"faults": [{}]})
    refused("this run has come to its end")
    out = folder(tmp_path, **ended | {"interrupted": True})
    refused("there is no checkpoint", "--checkpoint-every")
    keep(out, 0, 3, 4)
    keep(out, 2, 4)
    refused("of worker 1", "--restarts")
    keep(out, 1, 1, 2)
    refused("of worker 1")
    (out / "summary.json").unlink()
    with locked(out):
        keep(out, 1, 4)
        refused("this run is still going on")


@pytest.mark.parametrize("option", ["-n 3", "--seed 1", "--set steps=5", "-o x"])
def test_a_run_goes_on_as_it_was(tmp_path: Path, option: str) -> None:
    out = folder(tmp_path)
    for worker in range(3):
        keep(out, worker, 1)
    done = decent("launch", "--resume", out, *option.split())
    assert done.exit_code == 2
    assert "goes on with the configuration" in done.stderr
    assert decent("launch", "digits", "--resume", out).exit_code == 2


def test_the_newest_line_is_taken(tmp_path: Path) -> None:
    out = folder(tmp_path)
    keep(out, 0, 1, 2, 3)
    keep(out, 1, 1, 2)
    keep(out, 2, 2, 3)
    found = resumable(out)
    assert {worker: span.cut for worker, span in found.spans.items()} == {0: 2, 1: 2, 2: 2}
    assert found.name == "ab+1"
    with locked(out), pytest.raises(ConfigError, match="still going on"), locked(out):
        pass


@pytest.mark.slow
def test_who_lacks_a_checkpoint_rejoins_the_others(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = run(
        tmp_path, "-n", "3", "-o", "out", "--checkpoint-every", "30", "--set", "steps=600"
    )  # fmt: skip
    until(lambda: cut(out, 3) >= 3, process, "three checkpoints")
    kill_all(process)
    for file in (out / "workers/1/checkpoints").iterdir():
        file.unlink()
    assert "of worker 1" in decent("launch", "--resume", out).stderr
    done = decent("launch", "--resume", out, "--restarts", "1", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["merged_among"] == [0, 1, 2]
    assert [each["steps"] for each in summary["workers"]] == [600] * 3
    assert decent("audit", out).exit_code == 0
