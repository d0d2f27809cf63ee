"""One of the two processes that `bench_exchange` measures: argv is a JSON object of settings.

Each holds a communicator, with no training beside it, and a torch.distributed (gloo) group with the
other. Measurements are taken in turn; the first process prints them as one line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from decent.bench.memory import peak_mb
from decent.dynamics import Acid, Dynamics, Gossip
from decent.runtime.board import Board
from decent.runtime.communicator import Communicator
from decent.runtime.link import Spec
from decent.schedule import Never
from decent.topology import family
from decent.worker import Limits

PATIENCE_S = 120.0
DYNAMICS: dict[str, type[Dynamics]] = {"gossip": Gossip, "a2cid2": Acid}


class Half:
    """One end of the edge: a communicator whose worker starts nothing by itself."""

    def __init__(self, rank: int, settings: dict[str, Any], folder: Path, shared: bool) -> None:
        dynamics = DYNAMICS[settings["dynamics"]]()
        slots = 2 if settings["dynamics"] == "a2cid2" else 1
        self.board = Board(slots, settings["params"], "float32")
        self.board.state[:] = np.float32(rank)
        ours, theirs = socket.socketpair()
        self._line = ours  # kept open: a communicator ends with its line
        spec = Spec(
            me=rank, topology=family("line", 2), dynamics=dynamics, schedule=Never(),
            limits=Limits(chunk=settings["chunk_kib"] * 256, dead_s=600.0, silent_s=300.0),
            values=settings["params"], dtype="float32", digest="", run=f"bench-{shared}", seed=0,
            steps=None, origin_s=time.monotonic(), folder=str(folder),
            address="tcp://127.0.0.1:*", shared_memory=shared,
        )  # fmt: skip
        self.communicator = Communicator(spec, self.board, Connection(theirs.detach()))
        self.worker = self.communicator.worker
        self.worker.start(self.communicator.now())
        self._until(lambda: self.worker.ready)

    def exchange(self, rank: int) -> None:
        """One exchange, from the first request to the last word of it."""
        stats = self.worker.context.stats
        if rank == 0:
            done = stats.completed + 1
            peer = self.worker.peers[1]
            self._until(lambda: peer.met)
            self.worker.exchanges.start(peer, self.communicator.now())
            self.communicator._flush()
            self._until(lambda: stats.completed >= done)
        else:
            answers = self.worker.peers[0].answers
            seen = answers.seq
            self._until(lambda: answers.seq > seen and not answers.replies)

    def _until(self, ready: Callable[[], bool]) -> None:
        start_s = time.monotonic()
        while not ready():
            self.communicator.serve(0.01)
            if time.monotonic() > start_s + PATIENCE_S:
                raise TimeoutError("the other half does not answer")


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall from a common start to both being done, and of both processors."""
    dist.barrier()
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    cpu = torch.tensor(time.process_time() - start_cpu_s)
    dist.barrier()
    wall_s = time.perf_counter() - start_s
    dist.all_reduce(cpu)
    return wall_s, float(cpu) / 2


def gloo_pair(rank: int, x: torch.Tensor, y: torch.Tensor) -> None:
    """Send and receive the vector, and average."""
    sent = dist.isend(x, 1 - rank, tag=1)
    dist.recv(y, 1 - rank, tag=1)
    assert sent is not None
    sent.wait()
    x.add_(y).mul_(0.5)


def main(settings: dict[str, Any]) -> None:
    rank, folder = settings["rank"], Path(settings["folder"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/gloo", rank=rank, world_size=2)
    works: dict[str, Callable[[], object]] = {}
    kinds = settings["kinds"]
    base_mb = peak_mb()
    for kind, shared in (("tcp", False), ("shared", True)):
        if kind in kinds:
            half = Half(rank, settings, folder / kind, shared)
            works[kind] = lambda half=half: half.exchange(rank)  # type: ignore[misc]
    x, y = (torch.full((settings["params"],), float(rank)) for _ in range(2))
    if "gloo_all_reduce" in kinds:
        works["gloo_all_reduce"] = lambda: dist.all_reduce(x)
    if "gloo_send_receive" in kinds:
        works["gloo_send_receive"] = lambda: gloo_pair(rank, x, y)
    if len(kinds) == 1 and kinds[0] in ("tcp", "shared"):
        del x, y
        gc.collect()
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in works}
    for _ in range(settings["rounds"] + 1):
        for kind, work in works.items():
            found[kind].append(measured(work))
    if rank == 0:
        print(json.dumps({"found": found, "peak_mb": peak_mb() - base_mb}), flush=True)
    dist.barrier()
    os._exit(0)  # sockets and groups need no good-byes here


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
