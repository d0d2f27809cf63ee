"""Data by name or file: samples x [n, *S] and labels [n], one digest over the contents.

    "fashion-mnist"   60 000 + 10 000 images [1, 28, 28]; Debian's files, or option path
    "digits"          1400 + 397 images [1, 8, 8]; comes with scikit-learn
    "FILE.npy"        samples; mapped into memory, never read whole
    "FILE.npz"        arrays x, and where there are any labels, test_x, test_labels; mapped too,
                      unless compressed
    "package.module:function" or "path/to/file.py:function"    gives Data, x, or (x, labels)

Values are floats, images in [−1, 1]; bytes are brought there, v/127.5 − 1. Labels are 0, 1, ….
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from decent import plugins
from decent.errors import TaskError
from decent.learning.digits import Digits
from decent.learning.fashion_mnist import DEBIAN, find, read_idx

Rows: TypeAlias = "slice | Tensor | NDArray[np.integer[Any]]"
CHUNK = 4096  # samples looked at together
A_SOURCE = "samples, or a pair of samples and labels"


@dataclass(frozen=True)
class Data:
    """Samples and their labels, and those for tests where there are any."""

    x: Tensor | NDArray[Any]
    """[n, *S]: float32, or an array mapped from a file, of floats or bytes"""
    labels: Tensor | None = None
    """int64 [n]"""
    name: str = "array"
    test: Data | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _check(self)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        """S, of one sample."""
        return tuple(self.x.shape[1:])

    @property
    def classes(self) -> int:
        """How many classes the labels tell apart; 0: there are no labels."""
        return 0 if self.labels is None else int(self.labels.max()) + 1

    def rows(self, which: Rows) -> Tensor:
        """The samples `which`, as float32 [m, *S]. Raises TaskError if one is not finite."""
        if isinstance(self.x, Tensor):
            chosen = self.x[which]
        else:
            where = which.numpy() if isinstance(which, Tensor) else which
            chosen = torch.from_numpy(np.array(self.x[where]))
        rows = chosen.float() if chosen.is_floating_point() else chosen.float() / 127.5 - 1
        if not rows.isfinite().all():
            raise TaskError(f"{self.name} holds NaN or infinity", "finite samples", "clean it")
        return rows

    def chunks(self, size: int = CHUNK) -> Iterator[Tensor]:
        """All samples in order, float32 [m, *S], at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.rows(slice(start, start + size))

    @cached_property
    def digest(self) -> str:
        """xxh3-128 of shapes, dtypes and contents, in hexadecimal. Read in pieces."""
        state = xxhash.xxh3_128()
        for array in (self.x, self.labels):
            if array is None:
                continue
            state.update(f"{array.dtype} {tuple(array.shape)}".replace("torch.", "").encode())
            for start in range(0, len(array), CHUNK):
                state.update(np.ascontiguousarray(array[start : start + CHUNK]).data)
        return state.hexdigest()


def load(source: str, **options: Any) -> Data:
    """The data called `source`.

    Raises TaskError if there is none, or if it is not samples with as many labels.
    """
    if ":" not in source and Path(source).suffix in (".npy", ".npz"):
        if options:
            raise TaskError(f"{source} with {', '.join(options)}", "no options of a file")
        return _read(Path(source))
    known = {"fashion-mnist": _fashion_mnist, "digits": _digits}
    made = plugins.build(
        "data", source, known, options, TaskError, lambda found: isinstance(found, Data)
    )
    return wrap(made, source)


def wrap(made: Any, name: str = "array") -> Data:
    """Data out of itself, of samples, or of a pair of samples and labels."""
    if isinstance(made, Data):
        return made
    x, labels = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(x, (Tensor, np.ndarray)):
        raise TaskError(f"{name} gave a {type(x).__name__}", A_SOURCE)
    if isinstance(x, np.ndarray) and not isinstance(x, np.memmap):
        x = x.astype(np.float32) if x.dtype.kind == "f" else x
    try:
        return Data(x, None if labels is None else torch.as_tensor(np.asarray(labels)), name)
    except (TypeError, ValueError) as error:
        raise TaskError(f"{name}: labels {error}", "an integer to each sample") from None


def _check(data: Data) -> None:
    kind = str(data.x.dtype).replace("torch.", "")
    if data.x.ndim < 2 or 0 in data.x.shape:
        raise TaskError(f"{data.name}: samples of shape {tuple(data.x.shape)}", "[n, …], n ≥ 1")
    if not (kind.startswith("float") or kind == "uint8"):
        raise TaskError(f"{data.name}: samples of type {kind}", "floats, or bytes (uint8)")
    if data.labels is None:
        return
    if data.labels.dtype != torch.int64 or data.labels.shape != data.x.shape[:1]:
        given = f"{str(data.labels.dtype)[6:]}{list(data.labels.shape)}"
        raise TaskError(f"{data.name}: labels {given}", f"int64[{len(data.x)}], one to a sample")
    if data.labels.min() < 0:
        raise TaskError(f"{data.name}: label {int(data.labels.min())}", "labels 0, 1, …")


def _digits() -> Data:
    task = Digits()
    test = Data(task.test.X.reshape(-1, 1, 8, 8), task.test.y, "digits")
    return Data(task.train.X.reshape(-1, 1, 8, 8), task.train.y, "digits", test)


def _fashion_mnist(path: str = "") -> Data:
    folder = Path(path) if path else DEBIAN
    test = Data(*_images(folder, "t10k"), "fashion-mnist")
    return Data(*_images(folder, "train"), "fashion-mnist", test)


def _images(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = read_idx(find(folder, f"{part}-images-idx3-ubyte"), (28, 28))
    labels = read_idx(find(folder, f"{part}-labels-idx1-ubyte"), ())
    x = torch.from_numpy(images)[:, None].float().div_(127.5).sub_(1)
    return x, torch.from_numpy(labels).long()


def _read(path: Path) -> Data:
    try:
        if path.suffix == ".npy":
            return Data(np.load(path, mmap_mode="r"), name=path.name)
        return _archive(path)
    except (OSError, ValueError, EOFError, struct.error, zipfile.BadZipFile) as error:
        raise TaskError(
            f"{path}: {getattr(error, 'strerror', None) or error}",
            "a .npy or .npz file of numbers",
            "check the path",
        ) from None


def _archive(path: Path) -> Data:
    with zipfile.ZipFile(path) as archive:
        arrays = {
            info.filename.removesuffix(".npy"): _member(path, archive, info)
            for info in archive.infolist()
        }
    known = {"x", "labels", "test_x", "test_labels"}
    if "x" not in arrays or not arrays.keys() <= known:
        raise TaskError(
            f"{path} holds {', '.join(arrays) or 'nothing'}",
            "x, and where there are any labels, test_x, test_labels",
        )
    labels = {
        name: torch.from_numpy(np.array(arrays[name], np.int64))
        for name in ("labels", "test_labels")
        if name in arrays
    }
    test = None
    if "test_x" in arrays:
        test = Data(arrays["test_x"], labels.get("test_labels"), path.name)
    return Data(arrays["x"], labels.get("labels"), path.name, test)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """One array of an archive: mapped, unless it is compressed."""
    if info.compress_type != zipfile.ZIP_STORED:
        with archive.open(info) as packed:
            whole: NDArray[Any] = np.lib.format.read_array(packed, allow_pickle=False)
            return whole
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # of zip's own header, then its name and extra field
        file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
        old = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds objects")
        return np.memmap(path, dtype, "r", file.tell(), shape, "F" if fortran else "C")
