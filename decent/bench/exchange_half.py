"""One end of the edge that `bench_exchange` measures: a communicator with no training beside it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from decent.dynamics import Acid, Dynamics, Gossip
from decent.runtime.board import Board
from decent.runtime.communicator import Communicator
from decent.runtime.link import Spec
from decent.schedule import Never
from decent.topology import family
from decent.transport import bounds
from decent.worker import Limits, codecs

PATIENCE_S = 120.0
DYNAMICS: dict[str, type[Dynamics]] = {"gossip": Gossip, "a2cid2": Acid}


class Half:
    """One end of the edge: a communicator whose worker starts nothing by itself."""

    def __init__(
        self,
        rank: int,
        settings: dict[str, Any],
        folder: Path,
        shared: bool = True,
        codec: str = "exact",
    ) -> None:
        dynamics = DYNAMICS[settings["dynamics"]]()
        slots = 2 if settings["dynamics"] == "a2cid2" else 1
        ours, theirs = socket.socketpair()
        self._line = ours  # kept open: a communicator ends with its line
        spec = Spec(
            me=rank, topology=family("line", 2), dynamics=dynamics, schedule=Never(),
            limits=Limits(
                chunk=settings["chunk_kib"] * 256, window=bounds.WINDOW[False],
                dead_s=600.0, silent_s=300.0,
            ),
            values=settings["params"], dtype="float32", digest="", run="bench", seed=0,
            steps=None, origin_s=time.monotonic(), folder=str(folder),
            address="tcp://127.0.0.1:*", shared_memory=shared, codec=codecs.get(codec),
            ledger=settings["ledger"],
        )  # fmt: skip
        self.board = Board(slots, spec.values, spec.dtype, accounts=len(spec.kept or ()))
        self.board.state[:] = np.float32(rank)
        self.communicator = Communicator(spec, self.board, Connection(theirs.detach()))
        self.worker = self.communicator.worker
        self.worker.start(self.communicator.now())
        self.serve_until(lambda: self.worker.ready)

    def exchange(self, rank: int) -> None:
        """One exchange, from the first request to the last word of it."""
        stats = self.worker.context.stats
        if rank == 0:
            done = stats.completed + 1
            peer = self.worker.peers[1]
            self.serve_until(lambda: peer.met)
            self.worker.exchanges.start(peer, self.communicator.now())
            self.communicator._flush()
            self.serve_until(lambda: stats.completed >= done)
        else:
            answers = self.worker.peers[0].answers
            seen = answers.seq
            self.serve_until(lambda: answers.seq > seen and not answers.replies)

    def serve_until(self, ready: Callable[[], bool]) -> None:
        start_s = time.monotonic()
        while not ready():
            self.communicator.serve(0.01)
            if time.monotonic() > start_s + PATIENCE_S:
                raise TimeoutError("the other half does not answer")
