"""Whole runs of real processes, started as the library does, and what to look for afterwards.

All tests of one session share a fork server, so that torch is imported once.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from decent import config as configs
from decent.config import Config
from decent.launcher import launch

Statuses = list[dict[str, Any]]
PATIENCE_S = 60.0
SCRIPT = """
import sys, time
import torch
import decent

model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
gossip = decent.Gossip(model, optimizer)
me = gossip.world.me
"""
"""The beginning of a user's script."""


def config(workers: int, **settings: Any) -> Config:
    """Digits on a ring, unless the settings (keys dotted with `__`) say otherwise."""
    given = [f"{key.replace('__', '.')}={value}" for key, value in settings.items()]
    return configs.load(None, [f"workers={workers}", *given])


class Job:
    """One run in this process; `on_status` acts while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: Statuses = []

    def run(
        self,
        config: Config,
        script: str | None = None,
        arguments: list[str] | None = None,
        act: Callable[[Statuses], None] | None = None,
    ) -> dict[str, Any]:
        end_s = time.monotonic() + PATIENCE_S
        path = self.folder / "script.py" if script is not None else None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(script or "")

        def on_status(statuses: Statuses) -> None:
            self.seen = statuses
            if act is not None:
                act(statuses)
            assert time.monotonic() < end_s, f"the run does not end: {statuses}"

        return launch(
            config, self.folder / "run", script=path, arguments=arguments, on_status=on_status
        )

    def log(self, worker: int) -> str:
        return (self.folder / "run/workers" / str(worker) / "log.txt").read_text()

    def events(self, worker: int) -> list[dict[str, Any]]:
        trace = self.folder / "run/workers" / str(worker) / "trace.jsonl"
        return [json.loads(line) for line in trace.read_text().splitlines()]

    def ledger(self, worker: int) -> list[dict[str, Any]]:
        ledger = self.folder / "run/workers" / str(worker) / "ledger.jsonl"
        return [json.loads(line) for line in ledger.read_text().splitlines()]

    def said(self, worker: int) -> list[str]:
        return self.log(worker).splitlines()


class KillAt:
    """Kills `worker` once it is in `state` and has made so many steps; others must have, too."""

    def __init__(self, worker: int, state: str = "training", step: int = 0) -> None:
        self.worker, self.state, self.step, self.done = worker, state, step, False

    def __call__(self, statuses: Statuses) -> None:
        status = statuses[self.worker]
        if not self.done and status["state"] == self.state and status["step"] >= self.step:
            os.kill(status["pid"], signal.SIGKILL)
            self.done = True


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def below(pid: int) -> set[int]:
    """All processes that descend from `pid`."""
    parents = {}
    for stat in Path("/proc").glob("[1-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found, more = set[int](), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return found
