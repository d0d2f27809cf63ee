"""The idx files of Fashion-MNIST: read as written, refused when damaged."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from decent.errors import TaskError
from decent.learning.fashion_mnist import DEBIAN, FashionMNIST, read_idx

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "t10k"):
        images = gzip.compress(idx(PIXELS))
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(images)
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(
            idx(np.arange(40, dtype=np.uint8) % 10)
        )
    return tmp_path


def test_files_are_read_plain_and_compressed(folder: Path) -> None:
    images = read_idx(folder / "train-images-idx3-ubyte.gz", (28, 28))
    np.testing.assert_array_equal(images, PIXELS)
    labels = read_idx(folder / "t10k-labels-idx1-ubyte", ())
    np.testing.assert_array_equal(labels, np.arange(40) % 10)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    plain = idx(PIXELS[:2])
    packed = gzip.compress(plain)
    for data, suffix in ((plain, ""), (packed, ".gz")):
        for length in {0, 1, 3, 4, 15, 16, 17, len(data) // 2, len(data) - 9, len(data) - 1}:
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(data[:length])
            with pytest.raises(TaskError, match="cut"):
                read_idx(path, (28, 28))


@pytest.mark.parametrize(
    "data",
    [
        idx(PIXELS) + b"more",
        idx(PIXELS[:, :14]),
        b"\x00\x00\x0d" + idx(PIXELS)[3:],
        struct.pack(">IIII", 0x803, 2**31, 28, 28),
        b"<html>not found</html>",
    ],
)
def test_other_contents_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "images").write_bytes(data)
    with pytest.raises(TaskError, match="apt-get"):
        read_idx(tmp_path / "images", (28, 28))


def test_a_damaged_archive_is_refused(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(TaskError, match="train-images"):
        FashionMNIST(path=str(folder), train=10)


def test_labels_must_match_images(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, np.uint8)))
    with pytest.raises(TaskError, match="40 images, 39 labels"):
        FashionMNIST(path=str(folder))


@pytest.mark.parametrize(("norm", "parameters"), [("group", 10_282), ("batch", 10_282)])
def test_shares_and_model(folder: Path, norm: str, parameters: int) -> None:
    task = FashionMNIST(path=str(folder), train=10, norm=norm)
    shares = [task.data(k, 4) for k in range(4)]
    assert [len(share) for share in shares] == [10] * 4
    pooled = PIXELS.reshape(40, 1, 14, 2, 14, 2).mean((3, 5)) / 255
    np.testing.assert_allclose(task.train.X * 0.330 + 0.286, pooled, atol=1e-5)
    model = task.model()
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert torch.isfinite(task.loss(model, shares[0][:8]))
    with pytest.raises(TaskError, match="5 workers with 10 samples each out of 40"):
        task.data(0, 5)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_packaged_files() -> None:
    task = FashionMNIST(train=100)
    assert len(task.train.y) == 60_000
    assert len(task.test.y) == 10_000
    assert abs(float(task.train.X.mean())) < 0.01
    assert abs(float(task.train.X.std()) - 1) < 0.01
