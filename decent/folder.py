"""Files of a run: written whole or not at all, and journals of one JSON object a line.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextmanager
def durable(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it takes the place of `path` once it is complete, and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """So that a name in it outlives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomic(path, (json.dumps(value, indent=2, default=float) + "\n").encode())


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


class Journal:
    """An append-only file of JSON objects, one a line; `None` as path keeps nothing. Of a file that
    is there the first `keep` bytes stay."""

    def __init__(self, path: Path | None, keep: int = 0) -> None:
        import msgspec  # late: whoever prints a help text needs none of it

        self._encode = msgspec.json.Encoder(enc_hook=float).encode  # numpy's numbers
        self._file: BinaryIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=1 << 16)
            os.truncate(path, min(keep, path.stat().st_size))

    def length(self) -> int:
        """Bytes so far."""
        self.flush()
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def __call__(self, event: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(self._encode(event) + b"\n")

    def flush(self) -> None:
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def worker_folder(run: Path, worker: int) -> Path:
    """`workers/<id>` of a run folder."""
    return run / "workers" / str(worker)
