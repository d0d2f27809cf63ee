"""What a partition wrote, read by every later step.

    manifest.json            whose data, how divided, sizes and π_k, versions
    partition.safetensors    per sample its cluster and whether it is held out; the centroids

    clusters  int32 [n]     held_out  bool [n]
    method "features":      fine [F, d], groups int32 [F], centres [K, d]
    method "labels":        labels int64 [K], of the clusters

The manifest is written last and holds the other file's digest. π_k are the shares of the samples
trained on. Who holds a manifest can give new samples to clusters (`assign`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import safetensors.numpy
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError

from decent.config import Strict
from decent.errors import TaskError
from decent.experts import clusters
from decent.experts.sources import Data
from decent.folder import durable, write_json

FILE, ARRAYS = "manifest.json", "partition.safetensors"
VERSION = 1
AGAIN = "make it with `decent experts partition`"
Indices = NDArray[np.int64]
Arrays = Mapping[str, NDArray[Any]]


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
    """the feature model; empty if none was used"""
    method: Literal["features", "labels", "random"]
    sizes: tuple[int, ...]
    """samples each expert is trained on, without the held-out ones"""
    pi: tuple[float, ...]
    """sizes / their sum"""
    held_out: int
    arrays: str
    """digest of partition.safetensors"""
    versions: dict[str, str]
    label_counts: tuple[tuple[int, ...], ...] = ()
    """[K, classes] samples of each label among those of each expert; empty: no labels"""


class Manifest(Facts, frozen=True, kw_only=True):
    """The facts, and the arrays beside them."""

    tensors: Arrays

    @property
    def experts(self) -> int:
        """K."""
        return len(self.sizes)

    def clusters(self) -> Indices:
        """The cluster of each sample [count], held-out ones included."""
        return np.asarray(self.tensors["clusters"], np.int64)

    def indices(self, k: int) -> Indices:
        """Samples that expert `k` is trained on, ascending. Raises TaskError for no expert's k."""
        if not 0 <= k < self.experts:
            raise TaskError(f"expert {k}", f"0 to {self.experts - 1}")
        return np.flatnonzero((self.tensors["clusters"] == k) & ~self.tensors["held_out"])

    def training(self) -> Indices:
        """Samples that are not held out, ascending: what the router is trained on."""
        return np.flatnonzero(~self.tensors["held_out"])

    def validation(self) -> Indices:
        """Samples held out of all training, ascending."""
        return np.flatnonzero(self.tensors["held_out"])

    def centre(self, k: int) -> NDArray[np.float32]:
        """The mean feature [d] of cluster `k`. Raises TaskError unless made of features."""
        self.need("features")
        centre: NDArray[np.float32] = self.tensors["centres"][k]
        return centre

    def assign(self, features: NDArray[np.floating[Any]]) -> Indices:
        """Clusters [m] of new samples by their features [m, d].

        Raises TaskError unless the partition was made of features, of that many dimensions.
        """
        self.need("features")
        fine = self.tensors["fine"]
        if features.ndim != 2 or features.shape[1] != fine.shape[1]:
            raise TaskError(f"features of shape {features.shape}", f"(m, {fine.shape[1]})")
        if not np.isfinite(features).all():
            raise TaskError("features are not finite", "finite numbers")
        return np.asarray(self.tensors["groups"][clusters.nearest(features, fine)[0]], np.int64)

    def assign_labels(self, labels: NDArray[np.integer[Any]]) -> Indices:
        """Clusters [m] of new samples by their labels [m].

        Raises TaskError unless the partition was made of labels, these among them.
        """
        self.need("labels")
        known = self.tensors["labels"]
        if not np.isin(labels, known).all():
            raise TaskError(f"labels {sorted(set(labels) - set(known))}", f"some of {list(known)}")
        return np.searchsorted(known, labels).astype(np.int64)

    def need(self, method: str) -> None:
        """Raises TaskError unless the partition was made by `method`."""
        if self.method != method:
            raise TaskError(
                f"a partition by {self.method}",
                f"one by {method}",
                f'partition again with partition.method = "{method}"',
            )


def write(folder: Path, facts: dict[str, Any], arrays: Arrays) -> Manifest:
    """Both files, the manifest last; `facts` are those that do not follow from the arrays."""
    packed = safetensors.numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()})
    with durable(folder / ARRAYS) as file:
        file.write(packed)
    trained = arrays["clusters"][~arrays["held_out"]]
    sizes = np.bincount(trained)
    made = Facts(
        version=VERSION,
        count=len(arrays["clusters"]),
        sizes=tuple(sizes.tolist()),
        pi=tuple((sizes / sizes.sum()).tolist()),
        held_out=len(arrays["clusters"]) - len(trained),
        arrays=xxhash.xxh3_128_hexdigest(packed),
        **facts,
    )
    write_json(folder / FILE, msgspec.to_builtins(made))
    return Manifest(**msgspec.structs.asdict(made), tensors=arrays)


def read(folder: Path) -> Manifest:
    """Raises TaskError if `folder` holds none, or a damaged one."""
    try:
        facts = msgspec.convert(json.loads((folder / FILE).read_text()), Facts)
        packed = (folder / ARRAYS).read_bytes()
    except OSError as error:
        raise TaskError(f"{error.filename}: {error.strerror}", "a partition", AGAIN) from None
    except ValueError as error:
        raise TaskError(f"{folder / FILE}: {error}", "a manifest of decent", AGAIN) from None
    if facts.version != VERSION:
        raise TaskError(f"{folder / FILE}: version {facts.version}", str(VERSION), AGAIN)
    if xxhash.xxh3_128_hexdigest(packed) != facts.arrays:
        raise TaskError(f"{folder / ARRAYS} is not what {FILE} speaks of", facts.arrays, AGAIN)
    try:
        arrays = safetensors.numpy.load(packed)
    except SafetensorError as error:
        raise TaskError(f"{folder / ARRAYS}: {error}", "safetensors", AGAIN) from None
    return Manifest(**msgspec.structs.asdict(facts), tensors=arrays)


def check(manifest: Facts, data: Data) -> None:
    """Raises TaskError when `data` is not what was partitioned."""
    for what, given, expected in (
        ("samples", len(data), manifest.count),
        ("shape", data.shape, manifest.shape),
        ("digest", data.digest, manifest.digest),
    ):
        if given != expected:
            raise TaskError(
                f"{data.name} is not the data that was partitioned: {what} {given}",
                f"{expected}, of {manifest.source}",
                "give that data, or partition again",
            )
