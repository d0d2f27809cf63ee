"""Fashion-MNIST at 14×14: 60 000 + 10 000 images of clothing in ten classes, a small conv net.

Images are averaged over 2×2 pixels, brought to [0, 1] and standardised. Every worker has `train`
images, none shared, its classes drawn from Dir(α). The model, 10 282 parameters with group norm:

    conv 5×5/2 (1→16) – norm – ReLU – conv 3×3/2 (16→32) – norm – ReLU – linear (512→10)

Files are read in the idx format: two zero bytes, a type (8: unsigned byte), the number of
dimensions, each dimension as a big-endian uint32, then the values; gzip or plain.
Xiao, Rasul & Vollgraf, arXiv 1708.07747.
"""

from __future__ import annotations

import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from decent.errors import TaskError
from decent.learning.classification import Classification, Labelled, check_positive
from decent.learning.shards import Indices, skewed

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
REMEDY = "install it (apt-get install dataset-fashion-mnist) or name its folder with path="
MEAN, DEVIATION = 0.286, 0.330  # of the pooled training images
MOST = 1 << 20  # images that a file may announce


class FashionMNIST(Classification):
    """Fashion-MNIST at 14×14, a small conv net; Debian's dataset-fashion-mnist or path=."""

    name: ClassVar[str] = "fashion-mnist"

    def __init__(
        self,
        train: int = 500,
        alpha: float = 0.3,
        lr: float = 0.1,
        weight_decay: float = 5e-4,
        norm: str = "group",
        seed: int = 0,
        path: str = "",
    ) -> None:
        check_positive(self.name, train=train, alpha=alpha, lr=lr)
        if not weight_decay >= 0:
            raise TaskError(f"option weight_decay = {weight_decay}", "0 or more")
        if norm not in ("group", "batch"):
            raise TaskError(f"option norm = {norm!r}", '"group" or "batch"')
        self.share, self.alpha, self.norm, self.seed = train, alpha, norm, seed
        self.lr, self.weight_decay = lr, weight_decay
        folder = Path(path) if path else DEBIAN
        self.train, self.test = _labelled(folder, "train"), _labelled(folder, "t10k")

    @staticmethod
    def status() -> str:
        return "ready" if DEBIAN.is_dir() else f"no data: {REMEDY}"

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            self._norm(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            self._norm(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )

    def _norm(self, channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if self.norm == "batch" else nn.GroupNorm(4, channels)

    def shards(self, workers: int) -> list[Indices]:
        return skewed(self.train.y.numpy(), workers, self.share, self.alpha, self.seed)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.lr, weight_decay=self.weight_decay)


@lru_cache(maxsize=4)
def _labelled(folder: Path, part: str) -> Labelled:
    """One part of the data: X [n, 1, 14, 14], y [n]."""
    images = read_idx(find(folder, f"{part}-images-idx3-ubyte"), (28, 28))
    labels = read_idx(find(folder, f"{part}-labels-idx1-ubyte"), ())
    if len(images) != len(labels) or labels.max(initial=0) > 9:
        raise TaskError(
            f"{len(images)} images, {len(labels)} labels up to {labels.max(initial=0)} in {folder}",
            "as many labels as images, each 0 to 9",
        )
    return Labelled(_pooled(torch.from_numpy(images)), torch.from_numpy(labels).long())


def _pooled(images: Tensor) -> Tensor:
    parts = [avg_pool2d(part[:, None].float(), 2) for part in torch.split(images, 8192)]
    return (torch.cat(parts) / 255 - MEAN) / DEVIATION


def find(folder: Path, name: str) -> Path:
    """The file `name` in `folder`, compressed or not. Raises TaskError if there is none."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise TaskError(f"no {name}.gz in {folder}", "the four files of Fashion-MNIST", REMEDY)


def read_idx(path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    """The unsigned bytes in `path`, of shape [n, *item]; anything else is refused."""
    header = 4 * (len(item) + 2)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = np.frombuffer(file.read(header), dtype=">u4")
            if len(head) != len(item) + 2 or head[0] != 0x800 + len(item) + 1:
                raise TaskError(f"{path} starts with {head}", "an idx file of bytes", REMEDY)
            shape = tuple(int(size) for size in head[1:])
            if shape[1:] != item or shape[0] > MOST:
                raise TaskError(f"{path} holds {shape}", f"at most {MOST} items of {item}", REMEDY)
            body = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise TaskError(f"{path} cannot be read ({error})", "a whole idx file", REMEDY) from error
    if len(body) != math.prod(shape):
        raise TaskError(f"{path} holds {len(body)} values or more", f"{math.prod(shape)}", REMEDY)
    return np.frombuffer(body, dtype=np.uint8).reshape(shape).copy()
