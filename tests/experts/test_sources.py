"""Data: shapes and ranges, files mapped and not read, one digest for one content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decent.errors import TaskError
from decent.experts import sources
from decent.experts.sources import Data
from decent.learning.fashion_mnist import DEBIAN

X = np.random.default_rng(0).standard_normal((50, 3, 2)).astype(np.float32)
LABELS = np.arange(50) % 4


def pair() -> tuple[np.ndarray, np.ndarray]:
    return X, LABELS


def nothing() -> str:
    return "no data"


def test_digits() -> None:
    data = sources.load("digits")
    assert data.x.shape == (1400, 1, 8, 8)
    assert (float(data.x.min()), float(data.x.max())) == (-1, 1)
    assert (data.shape, data.classes) == ((1, 8, 8), 10)
    assert data.test is not None
    assert len(data.test) == 397
    assert data.digest == sources.load("digits").digest != data.test.digest


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_fashion_mnist() -> None:
    data = sources.load("fashion-mnist")
    assert data.x.shape == (60_000, 1, 28, 28)
    assert (float(data.x.min()), float(data.x.max())) == (-1, 1)
    assert data.test is not None
    assert data.test.x.shape == (10_000, 1, 28, 28)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_hold_what_was_put_in(tmp_path: Path, save: object) -> None:
    save(tmp_path / "a.npz", x=X, labels=LABELS, test_x=X[:5], test_labels=LABELS[:5])
    data = sources.load(str(tmp_path / "a.npz"))
    torch.testing.assert_close(data.rows(slice(None)), torch.from_numpy(X), rtol=0, atol=0)
    assert data.labels.tolist() == LABELS.tolist()
    assert len(data.test) == 5
    assert isinstance(data.x, np.memmap) == (save is np.savez)
    assert data.digest == sources.load(f"{__file__}:pair").digest


def test_files_are_mapped_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    data = sources.load(str(tmp_path / "x.npy"))
    assert isinstance(data.x, np.memmap)
    assert not data.x.flags.writeable
    assert data.digest == Data(torch.from_numpy(X)).digest
    which = np.array([3, 1, 40])
    assert torch.equal(data.rows(which), torch.from_numpy(X[which]))
    assert torch.equal(data.rows(torch.from_numpy(which)), torch.from_numpy(X[which]))


def test_bytes_become_images_from_minus_1_to_1() -> None:
    data = Data(np.array([[0, 255], [51, 204]], np.uint8))
    torch.testing.assert_close(data.rows(slice(None)), torch.tensor([[-1, 1], [-0.6, 0.6]]))


def test_chunks_are_the_rows_in_order() -> None:
    data = Data(X)
    parts = list(data.chunks(20))
    assert [len(part) for part in parts] == [20, 20, 10]
    assert torch.equal(torch.cat(parts), data.rows(slice(None)))


def test_the_digest_depends_on_every_part() -> None:
    changed = X.copy()
    changed[-1, -1, -1] += 1e-6
    digests = {
        Data(X).digest, Data(changed).digest, Data(X.reshape(50, 6)).digest,
        Data(X, torch.from_numpy(LABELS)).digest, Data(X, torch.from_numpy(3 - LABELS)).digest,
        Data(X.astype(np.float64)).digest,
    }  # fmt: skip
    assert len(digests) == 6


@pytest.mark.parametrize(
    ("x", "labels", "said"),
    [
        (np.zeros(5, np.float32), None, r"\[n, …\]"),
        (np.zeros((0, 3), np.float32), None, "n ≥ 1"),
        (np.zeros((5, 3), np.int64), None, "int64"),
        (X, torch.zeros(49, dtype=torch.int64), r"int64\[49\].*int64\[50\]"),
        (X, torch.zeros(50), "float32"),
        (X, torch.full((50,), -1), "label -1"),
    ],
)
def test_what_is_no_data_is_refused(x: np.ndarray, labels: torch.Tensor, said: str) -> None:
    with pytest.raises(TaskError, match=said):
        Data(x, labels)


def test_values_that_are_not_finite_are_refused() -> None:
    x = X.copy()
    x[7, 0, 0] = np.nan
    with pytest.raises(TaskError, match="NaN"):
        list(Data(x).chunks())


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", y=X)
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", x=np.array([[None]]))
    for name in ("text.npy", "text.npz", "missing.npy", "other.npz", "objects.npy", "objects.npz"):
        with pytest.raises(TaskError, match=name):
            sources.load(str(tmp_path / name))
    for name, said in (("fashion-mnst", "did you mean"), (f"{__file__}:nothing", "a str")):
        with pytest.raises(TaskError, match=f"(?i){said}"):
            sources.load(name)
    with pytest.raises(TaskError, match="no option"):
        sources.load("digits", path="x")
