"""Real communicator processes with real sockets, and the tests in the place of training.

A `Node` is one worker: shared memory, a communicator, the line to it. Steps are ticked without an
optimizer, so that local time runs and exchanges come due, and nothing but exchanges changes state.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from decent.dynamics import Dynamics, Gossip
from decent.folder import read_json, worker_folder
from decent.runtime import link
from decent.runtime.board import Board
from decent.schedule import Poisson, Schedule
from decent.topology import Topology
from decent.worker import Limits
from decent.worker.ledger import kept_values

PATIENCE_S = 60.0
QUICK = Limits(chunk=256, start_s=60.0, silent_s=30.0, dead_s=300.0)
"""Small chunks, so that small vectors travel in several; silence proves nothing on a busy machine,
so whoever is found dead in these tests has been said to be."""


class Node:
    """Worker `me`; `vector` are its parameters, `more` other fields of its `Spec`."""

    def __init__(
        self,
        me: int,
        topology: Topology,
        vector: np.ndarray[Any, Any],
        folder: Path,
        *,
        dynamics: Dynamics | None = None,
        schedule: Schedule | None = None,
        run: str = "test",
        digest: str = "",
        address: str = "tcp://127.0.0.1:*",
        limits: Limits = QUICK,
        **more: Any,
    ) -> None:
        self.me, self.folder, self.steps, self.round = me, folder, 0, 0
        dynamics = dynamics or Gossip()
        initial = dynamics.initial(vector)
        kept = kept_values(more.get("ledger", False), 0, vector.size, limits.chunk) or ()
        self.board = Board(len(initial), vector.size, vector.dtype.name, accounts=len(kept))
        self.board.state[:] = initial
        self.origin_s = time.monotonic()
        self.spec = link.Spec(
            me=me, topology=topology, dynamics=dynamics, schedule=schedule or Poisson(),
            limits=limits, values=vector.size, dtype=vector.dtype.name, digest=digest, run=run,
            seed=0, steps=None, origin_s=self.origin_s, folder=str(folder), address=address,
            **more,
        )  # fmt: skip
        self.process: subprocess.Popen[bytes]
        self.line: Connection
        self.process, self.line = link.start(self.spec, self.board.fd)

    @property
    def x(self) -> np.ndarray[Any, Any]:
        return self.board.state[0]

    def tick(self) -> None:
        self.steps += 1
        if self.board.tick(time.monotonic() - self.origin_s):
            self.say(do="wake")

    def say(self, **words: Any) -> None:
        self.line.send_bytes(msgpack.packb(words))

    def ask_merge(
        self, vector: np.ndarray[Any, Any] | None = None, weight: float = 1.0, round: int = 0
    ) -> None:
        given = None if vector is None else vector.tobytes()
        self.say(do="merge", round=round, weight=weight, vector=given)

    def hear(self, *words: str) -> dict[str, Any]:
        """What it says next; it has to be one of `words`."""
        assert self.line.poll(PATIENCE_S), f"worker {self.me}: not a word, expected {words}"
        said: dict[str, Any] = msgpack.unpackb(self.line.recv_bytes())
        assert set(words) & set(said), f"worker {self.me}: {said}"
        return said

    def close(self) -> dict[str, Any]:
        """Leave in good order; the statistics."""
        self.say(do="close")
        stats: dict[str, Any] = self.hear("stats")["stats"]
        self.process.wait(PATIENCE_S)
        return stats

    def address(self) -> str:
        file = worker_folder(self.folder, self.me) / "endpoint.json"
        until(file.exists, f"worker {self.me} publishes its address")
        return str(read_json(file)["address"])

    def trace(self) -> list[dict[str, Any]]:
        """Its events so far; a line that is being written is not among them."""
        file = worker_folder(self.folder, self.me) / "trace.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return [json.loads(line) for line in lines]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.trace() if event["event"] == name]

    def discard(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(PATIENCE_S)
        self.line.close()


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for `condition`, but not for ever."""
    end_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end_s, f"not in {patience_s:.0f} s: {what}"
        time.sleep(0.02)


def ready(nodes: Sequence[Node]) -> None:
    for node in nodes:
        node.hear("ready")


def train(nodes: Sequence[Node], steps: int, step_s: float) -> None:
    """So many steps at each of them, side by side."""
    for _ in range(steps):
        for node in nodes:
            node.tick()
        time.sleep(step_s)


def settle(nodes: Sequence[Node], round: int = 1) -> None:
    """Until no exchange is open anywhere: each takes part in the mean of a single number."""
    for node in nodes:
        node.ask_merge(np.ones(1, node.x.dtype), round=round)
    for node in nodes:
        said = node.hear("merged")
        assert said["merged"] == round
        assert said["among"] == [each.me for each in nodes]
