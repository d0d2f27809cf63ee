"""Checkpoints as files of a run folder, and which of them all workers go on from.

    workers/<id>/checkpoints/<since>-<cut>.gossip.safetensors    the communicator's part
    workers/<id>/checkpoints/<since>-<cut>.training.pt           the training process's

`since` and `cut` are those of `worker.cuts`. Both parts are taken at one moment between two steps;
each process writes its own, in a thread, to a temporary file that is renamed once it is on the
disk. A checkpoint counts when both parts are there; a worker that is alone has the second only. The
first holds the arrays of a snapshot (`worker.snapshot`), and the rest as MessagePack under `tree`;
the second is read as data, never as code. Of what all workers no longer need the newest two stay.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from decent.errors import ModelError
from decent.folder import durable, worker_folder
from decent.worker import Span, line, snapshot
from decent.worker.snapshot import Tree

Part = Literal["gossip", "training"]
SUFFIX: dict[Part, str] = {"gossip": "gossip.safetensors", "training": "training.pt"}
NEWEST, MOST = 2, 6
"""checkpoints kept of a worker: so many in any case, and so many where others are behind"""
TREE = "tree"
TYPES = {"f4": "F32", "f8": "F64", "u1": "U8", "i8": "I64", "u4": "U32", "i4": "I32", "b1": "BOOL"}


@dataclass(frozen=True)
class Checkpoints:
    """Those of worker `me` in the folder of a run of `workers`; 1 also for one kept apart."""

    run: Path
    me: int
    workers: int

    @property
    def home(self) -> Path:
        return worker_folder(self.run, self.me) / "checkpoints"

    def path(self, span: Span, part: Part) -> Path:
        return self.home / f"{span.since:08d}-{span.cut:08d}.{SUFFIX[part]}"

    def spans(self) -> list[Span]:
        """The complete ones, oldest first."""
        names = {path.name for path in self.home.glob("*-*.*")}
        parts: list[Part] = ["gossip", "training"] if self.workers > 1 else ["training"]
        found = {_span(name) for name in names} - {None}
        return sorted(
            span
            for span in found
            if span and all(self.path(span, part).name in names for part in parts)
        )

    def discard(self, unwanted: Callable[[Span], bool]) -> None:
        """Remove these, complete or not, and what was never completed."""
        for path in [*self.home.glob("*-*.*"), *self.home.glob(".*")]:
            span = _span(path.name)
            if span is None or unwanted(span):
                path.unlink(missing_ok=True)

    def prune(self) -> None:
        """Remove what is older than the newest line of all, but for the newest two. Called by one
        process; the other may be writing the other part of the newest."""
        own = self.spans()
        crew = range(self.workers) if self.workers > 1 else [self.me]
        common = line({me: self.of(me).spans() for me in crew})
        oldest = common.get(self.me, own[0] if own else None)
        kept = [span for span in own if oldest is None or span.cut >= oldest.cut][-MOST:]
        kept += own[-NEWEST:]
        for span in own:
            if span not in kept:
                for part in SUFFIX:
                    self.path(span, part).unlink(missing_ok=True)

    def of(self, other: int) -> Checkpoints:
        return Checkpoints(self.run, other, self.workers)


def _span(name: str) -> Span | None:
    found = re.match(r"(\d+)-(\d+)\.", name)
    return Span(int(found[1]), int(found[2])) if found else None


def lines(run: Path, workers: int) -> dict[int, Span]:
    """What all are to go on from; without those that have nothing that fits."""
    return line({me: Checkpoints(run, me, workers).spans() for me in range(workers)})


# the communicator's part


def write(path: Path, tree: Tree) -> None:
    """In the format of safetensors, without a copy of the arrays."""
    plain, arrays = snapshot.split(tree)
    coded = np.frombuffer(msgspec.msgpack.encode(plain), np.uint8)
    parts = {TREE: coded, **{name: np.ascontiguousarray(each) for name, each in arrays.items()}}
    header = _header(parts)
    with durable(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for array in parts.values():
            file.write(array.data.cast("B") if array.size else b"")


def _header(parts: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Types, shapes and places, as JSON padded to eight bytes."""
    known, end = {}, 0
    for name, array in parts.items():
        start, end = end, end + array.nbytes
        known[name] = {
            "dtype": TYPES[array.dtype.str[1:]], "shape": array.shape, "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(known).encode()
    return text + b" " * (-len(text) % 8)


def read(path: Path) -> Tree:
    """What `write` has written. Raises ModelError for what it has not."""
    with _opened(path) as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        tree: Tree = snapshot.joined(_tree(file), arrays)
    return tree


def seconds(path: Path) -> float:
    """When it was taken, in the seconds of the trace."""
    with _opened(path) as file:
        return float(_tree(file)["s"])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            yield file
    except (SafetensorError, OSError, KeyError, msgspec.MsgspecError) as error:
        raise ModelError(
            f"{path}: {error}", "a checkpoint that can be read",
            "remove the file: an older checkpoint will be taken",
        ) from error  # fmt: skip


def _tree(file: Any) -> Any:
    return msgspec.msgpack.decode(file.get_tensor(TREE).tobytes(), strict=False)


# writing


class Writer:
    """Writes in a thread, one checkpoint at a time; one that still waits gives way to a newer."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._waiting: Callable[[], None] | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[], None]) -> None:
        with self._news:
            self._waiting = write
            self._news.notify()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()

    def close(self, patience_s: float) -> None:
        """Wait for what is being written."""
        with self._news:
            self._closed = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(patience_s)

    def _work(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting or self._closed)
                write, self._waiting = self._waiting, None
            if write is None:
                return
            try:
                write()
            except OSError as error:
                print(f"a checkpoint could not be written: {error}", flush=True)
