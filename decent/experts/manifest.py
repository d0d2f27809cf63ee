"""What a partition wrote (signatures; the rest follows)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from decent.config import Strict

FILE, ARRAYS = "manifest.json", "partition.safetensors"


class Facts(Strict, frozen=True):
    """manifest.json."""

    version: int
    seed: int
    source: str
    digest: str
    """of the data's contents"""
    count: int
    shape: tuple[int, ...]
    """of one sample of the data"""
    classes: int
    """labels are 0 … classes − 1; 0: no labels"""
    latent: str
    features: str
    """id of the feature model"""
    method: Literal["features", "labels", "random"]
    sizes: tuple[int, ...]
    """samples each expert is trained on, without the held-out ones"""
    pi: tuple[float, ...]
    """sizes / their sum"""
    held_out: int
    arrays: str
    """digest of partition.safetensors"""
    versions: dict[str, str] = {}


class Manifest(Facts, frozen=True):
    """The facts, and the arrays beside them."""

    tensors: dict[str, NDArray[np.generic]] = {}

    @property
    def experts(self) -> int:
        """K."""
        return len(self.sizes)

    def clusters(self) -> NDArray[np.int64]:
        """The cluster of each sample [count], held-out ones included."""
        raise NotImplementedError

    def indices(self, k: int) -> NDArray[np.int64]:
        """Samples that expert `k` is trained on, ascending."""
        raise NotImplementedError

    def validation(self) -> NDArray[np.int64]:
        """Samples held out of all training, ascending."""
        raise NotImplementedError

    def assign(self, features: NDArray[np.floating]) -> NDArray[np.int64]:
        """Clusters [m] of new features [m, d] (method "labels": of labels [m])."""
        raise NotImplementedError


def read(folder: Path) -> Manifest:
    """Raises TaskError if `folder` holds none, or a damaged one."""
    raise NotImplementedError


def check(manifest: Facts, data: object) -> None:
    """Raises TaskError when `data` is not what was partitioned."""
    raise NotImplementedError
