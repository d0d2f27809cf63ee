"""Ctrl-C, kill −9 of the launcher, several runs at the same time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from launcher.jobs import PATIENCE_S, SCRIPT, Job, Statuses, alive, below, config

COMMAND = "import sys; from decent.cli import main; main(sys.argv[1:], prog_name='decent')"
ENDLESS = (
    SCRIPT
    + """
while True:
    optimizer.step()
    gossip.step()
    print("step", flush=True)
    time.sleep(0.01)
"""
)
MERGING = SCRIPT + "gossip.step()\nif me == 0: time.sleep(600)\ngossip.merge()\n"
WAITING = ENDLESS.replace("while True", "while me == 0 or gossip._steps < 5") + "gossip.merge()\n"
SHORT = ENDLESS.replace("while True", "for _ in range(200)") + "print(gossip.merge())\n"


class Run:
    """`decent launch` of a script with 3 workers, and all processes that it has started."""

    def __init__(self, folder: Path, script: str) -> None:
        self.folder, self.pids = folder, set[int]()
        folder.mkdir(parents=True)
        (folder / "script.py").write_text(script)
        line = [sys.executable, "-c", COMMAND, "launch", "-n", "3", "-o", "out", "script.py"]
        self.process = subprocess.Popen(
            line, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end_s, f"not in {PATIENCE_S:.0f} s: {what}"
            self.pids |= below(self.process.pid)
            time.sleep(0.1)
        self.pids |= below(self.process.pid)

    def under_way(self, workers: int = 3) -> bool:
        logs = self.folder.glob("out/workers/*/log.txt")
        return sum("step" in log.read_text() for log in logs) >= workers

    def all_gone(self) -> bool:
        return not any(map(alive, self.pids))

    def end(self) -> int:
        """The exit code, once the command has ended."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def start(script: str, name: str = "a") -> Run:
        made.append(Run(tmp_path / name, script))
        return made[-1]

    yield start
    for each in made:
        for pid in {each.process.pid} | each.pids | below(each.process.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        each.process.communicate()


def test_three_runs_at_a_time(run: Callable[..., Run], job: Job) -> None:
    """They do not disturb each other: one is interrupted, one loses its launcher (while two of its
    workers wait in the merge), and one, in this process, runs to its end. Nothing is left."""
    first, second = run(ENDLESS, "a"), run(WAITING, "b")
    first.wait_for(first.under_way, "the first trains")
    second.wait_for(second.under_way, "the second trains")
    assert len(first.pids) >= 1 + 2 * 3  # fork server, workers and their communicators
    assert len(second.pids) >= 1 + 2 * 3
    assert not first.pids & second.pids

    outcome = job.run(config(3), SHORT, act=Once(lambda: first.process.send_signal(signal.SIGINT)))
    assert outcome["faults"] == []
    assert outcome["merged_among"] == [0, 1, 2]

    assert first.end() == 130
    first.wait_for(first.all_gone, "nothing of the first is left")
    summary = json.loads((first.folder / "out/summary.json").read_text())
    assert summary["interrupted"]
    assert summary["faults"] == []
    assert [each["exchanges"] is not None for each in summary["workers"]] == [True] * 3

    assert second.under_way()
    second.process.kill()
    second.wait_for(second.all_gone, "nothing of the second is left")
    log = (second.folder / "out/workers/0/log.txt").read_text()
    assert "the launcher is gone; this worker stops too" in log


class Once:
    """Acts when everyone trains, or when someone merges."""

    def __init__(self, act: Callable[[], None], state: str = "training") -> None:
        self.act, self.state, self.at_s = act, state, float("nan")

    def __call__(self, statuses: Statuses) -> None:
        states = [status["state"] for status in statuses]
        due = self.state in states and "starting" not in states and "ready" not in states
        if due and self.at_s != self.at_s:
            self.at_s = time.monotonic()
            self.act()


@pytest.mark.parametrize(
    ("number", "state", "script"),
    [(signal.SIGINT, "training", ENDLESS), (signal.SIGTERM, "merging", MERGING)],
)
def test_ctrl_c_ends_all_in_good_order(
    job: Job, number: signal.Signals, state: str, script: str
) -> None:
    """Also where workers wait in the merge for one that will not come."""
    before = signal.getsignal(signal.SIGTERM)
    once = Once(lambda: signal.raise_signal(number), state)
    outcome = job.run(config(3), script, act=once)
    took_s = time.monotonic() - once.at_s
    assert outcome["interrupted"]
    assert outcome["faults"] == []
    assert took_s < 9, took_s  # nobody waits for a result that cannot come, nobody is killed
    assert [result["stats"]["refused"] for result in outcome["results"]] == [0, 0, 0]
    assert signal.getsignal(signal.SIGTERM) == before


def test_who_does_not_listen_is_killed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decent.launcher.local.GRACE_S", 1.0)
    deaf = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n" + SCRIPT
    outcome = job.run(
        config(2), deaf + "while True: time.sleep(0.1); gossip.step()",
        act=Once(lambda: signal.raise_signal(signal.SIGINT)),
    )  # fmt: skip
    assert outcome["interrupted"]
    assert [result.get("dead") for result in outcome["results"]] == [True, True]


def test_it_runs_in_a_thread_too(job: Job) -> None:
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(job.run, config(2), "print('hello')").result(PATIENCE_S)
    assert outcome["faults"] == []


@pytest.mark.slow
def test_ctrl_c_at_once(run: Callable[..., Run]) -> None:
    """While the fork server still imports."""
    job = run(ENDLESS)
    job.wait_for(lambda: bool(below(job.process.pid)), "the fork server is started")
    job.process.send_signal(signal.SIGINT)
    assert job.end() == 130
    job.wait_for(job.all_gone, "nothing is left")
