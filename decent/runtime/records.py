"""What a communicator leaves in the run folder: trace, ledger, and its part of checkpoints."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from decent.errors import RuntimeFault
from decent.folder import Journal, worker_folder
from decent.runtime import checkpoint
from decent.runtime.board import Board
from decent.runtime.checkpoint import Checkpoints
from decent.runtime.link import Spec
from decent.worker import Ledger, Span
from decent.worker.ledger import FILE
from decent.worker.snapshot import Tree

PATIENCE_S = 30.0
ALL = 2**62
"""bytes"""


class Records:
    """Those of the worker of `spec`, whose memory is `board`. `found` is the checkpoint that it
    goes on from: files begin where they were then."""

    def __init__(self, spec: Spec, board: Board) -> None:
        self._files = Checkpoints(Path(spec.folder), spec.me, spec.topology.n)
        self._rejoins, self.found = spec.rejoins, self._find(spec, board)
        lengths = {"trace": 0, "books": 0} if self.found is None else self.found["files"]
        if spec.rejoins:  # another life of this worker: what the former one has written stays
            lengths = dict.fromkeys(lengths, ALL)
        home, kept = worker_folder(Path(spec.folder), spec.me), spec.kept
        self.trace = Journal(home / "trace.jsonl", lengths["trace"])
        self.books = Journal(None if kept is None else home / FILE, lengths["books"])
        self.ledger: Ledger | None = None
        if kept is not None:
            anew = self.found is None and not spec.rejoins
            self.ledger = Ledger(self.books, spec.seed, kept, board.stepped, anew=anew)
        self._writer = checkpoint.Writer()

    @property
    def epoch(self) -> int:
        """That of this life: a new one, unless it goes on with an old one."""
        if self.found is None or self._rejoins:
            return time.time_ns() // 1_000_000
        return int(self.found["epoch"])

    def keep(self, tree: Tree) -> None:
        """Write a checkpoint, in a thread."""
        tree["files"] = {"trace": self.trace.length(), "books": self.books.length()}
        path = self._files.path(Span(tree["since"], tree["cut"]), "gossip")
        self._writer.put(partial(checkpoint.write, path, tree))

    def flush(self) -> None:
        self.trace.flush()
        self.books.flush()

    def close(self) -> None:
        self.trace.close()
        self.books.close()
        self._writer.close(PATIENCE_S)

    def _find(self, spec: Spec, board: Board) -> Tree | None:
        if spec.span is None:
            return None
        path = self._files.path(spec.span, "gossip")
        tree = checkpoint.read(path)
        if tree["clock"]["steps"] != board.steps:
            raise RuntimeFault(
                f"{path} is of step {tree['clock']['steps']}, and its other part of {board.steps}"
            )
        return tree
