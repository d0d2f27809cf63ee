"""Dividing the data: latent, features, who is held out, clusters, and the folder that says so.

    DIR/settings.toml  latent/  features/  model_index.json  partition.safetensors  manifest.json

Held out are whole groups of near-duplicates, so that none has a copy in training. They take part in
fitting latent and centroids, and have a cluster; sizes, π_k and the bound on them count the others.
The manifest is written last: a folder without one was not finished.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import decent
from decent.errors import ConfigError, TaskError
from decent.experts import clusters, features, latent, manifest, sources, store
from decent.experts import settings as reading
from decent.experts.latent import Latent
from decent.experts.manifest import Manifest
from decent.experts.settings import Settings
from decent.experts.sources import CHUNK, Data
from decent.folder import write_atomic
from decent.schedule import stream

Tell = Callable[[str], object]
Indices = NDArray[np.int64]


def partition(settings: Settings, folder: Path, tell: Tell = lambda text: None) -> Manifest:
    """Divide the data among the experts and write all that later steps read to `folder`.

    `tell` is called with what is going on. Raises ConfigError and TaskError for what cannot be
    divided so: more experts than samples, features that are not finite, unknown names; and for a
    folder that has a partition, whose experts might be taken for those of another.
    """
    if (folder / manifest.FILE).exists():
        raise ConfigError(f"{folder} has a partition", "a new folder", "give another")
    _check_names(settings)
    tell(f"reading {settings.data.source}")
    data = sources.load(settings.data.source, **settings.data.options)
    _check_data(settings, data)
    tell(f"fitting the latent {settings.data.latent}")
    encoder = latent.latent(settings.data.latent, data)
    encoder.save(folder / store.LATENT)
    name, arrays = _divided(settings, data, encoder, folder, tell)
    write_atomic(folder / reading.FILE, settings.to_toml().encode())
    store.write_index(folder, settings.partition.experts)
    facts = {
        "seed": settings.seed, "source": settings.data.source, "digest": data.digest,
        "shape": data.shape, "classes": data.classes, "latent": settings.data.latent,
        "features": name, "method": settings.partition.method,
        "label_counts": _label_counts(data, arrays),
        "versions": {"decent": decent.__version__, "numpy": np.__version__},
    }  # fmt: skip
    return manifest.write(folder, facts, arrays)


def _label_counts(data: Data, arrays: dict[str, NDArray[Any]]) -> tuple[tuple[int, ...], ...]:
    """[K, classes] of the samples trained on."""
    if data.labels is None:
        return ()
    trained = ~arrays["held_out"]
    counts = np.zeros((arrays["clusters"].max() + 1, data.classes), np.int64)
    np.add.at(counts, (arrays["clusters"][trained], data.labels.numpy()[trained]), 1)
    return tuple(map(tuple, counts.tolist()))


@dataclass(frozen=True)
class Divided:
    """A partition with its data, as training takes it."""

    settings: Settings
    data: Data
    latent: Latent
    manifest: Manifest

    def latents(self, which: Indices) -> Tensor:
        """The latents float32 [m, *Z] of the samples `which` [m]."""
        pieces = range(0, len(which), CHUNK)
        parts = [self.latent.encode(self.data.rows(which[at : at + CHUNK])) for at in pieces]
        return torch.cat([torch.empty(0, *self.latent.shape), *parts])


def reopen(folder: Path) -> Divided:
    """The partition in `folder`, with its data.

    Raises TaskError if `folder` holds none, or if the data is not what was partitioned.
    """
    divided = manifest.read(folder)
    chosen = reading.load(folder / reading.FILE)
    data = sources.load(chosen.data.source, **chosen.data.options)
    manifest.check(divided, data)
    return Divided(chosen, data, latent.load(folder / store.LATENT), divided)


def assign(folder: Path, x: Tensor) -> Indices:
    """Clusters [m] of new samples x [m, *S], by the features the partition in `folder` was made of.

    Raises TaskError if it was not made of features, or if these are not finite.
    """
    divided = manifest.read(folder)
    divided.need("features")
    model = features.restore(divided.features, folder, latent.load(folder / store.LATENT))
    return divided.assign(model(x))


def _check_names(settings: Settings) -> None:
    latent.components(settings.data.latent)
    features.check(settings.partition.features)


def _check_data(settings: Settings, data: Data) -> None:
    experts = settings.partition.experts
    if experts > len(data):
        raise ConfigError(
            f"partition.experts = {experts} for {len(data)} samples", "no more experts than samples"
        )
    needed = {
        "data.conditional = true": settings.data.conditional,
        'partition.method = "labels"': settings.partition.method == "labels",
    }
    for setting, wanted in needed.items():
        if wanted and data.labels is None:
            raise ConfigError(f"{setting}, but {data.name} has no labels", "data with labels")


def _divided(
    settings: Settings, data: Data, encoder: Latent, folder: Path, tell: Tell
) -> tuple[str, dict[str, NDArray[Any]]]:
    """Name of the feature model, if one was used, and the arrays of the manifest."""
    table, share = settings.partition, settings.data.validation
    nobody = np.zeros(len(data), bool)
    if table.method != "features" and share == 0:
        return "", _checked(_given(settings, data) | {"held_out": nobody}, table.experts)
    tell(f"features {table.features}")
    model = features.features(table.features, data, encoder)
    model.save(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".features-") as scratch:
        rows = model.all(data, Path(scratch) / "features.npy")
        held = nobody
        if share > 0:
            tell("looking for near-duplicates")
            held = clusters.held_out(clusters.alike(rows, table.duplicates), share, settings.seed)
            _check_held(held, share)
        tell("clustering")
        by = _by_features(settings, rows, held) if table.method == "features" else None
    return table.features, _checked(
        (by or _given(settings, data)) | {"held_out": held}, table.experts
    )


def _given(settings: Settings, data: Data) -> dict[str, NDArray[Any]]:
    """Clusters by label, or by chance."""
    experts = settings.partition.experts
    if settings.partition.method == "random":
        order = stream(settings.seed, "partition").permutation(len(data))
        return {"clusters": (order % experts).astype(np.int32)}
    assert data.labels is not None
    labels, found = np.unique(data.labels.numpy(), return_inverse=True)
    if len(labels) != experts:
        raise ConfigError(
            f"partition.experts = {experts}, but {data.name} has {len(labels)} labels",
            "an expert to each label",
            f"set partition.experts = {len(labels)}",
        )
    return {"clusters": found.astype(np.int32), "labels": labels.astype(np.int64)}


def _by_features(
    settings: Settings, rows: NDArray[np.float32], held: NDArray[np.bool_]
) -> dict[str, NDArray[Any]]:
    table = settings.partition
    fine = clusters.fine(rows, table.fine, settings.seed)
    found, _ = clusters.nearest(rows, fine)
    weights = np.bincount(found[~held], minlength=len(fine))
    groups = clusters.coarse(fine, weights, table.experts, table.balance, settings.seed)
    return {
        "clusters": groups[found].astype(np.int32),
        "fine": fine,
        "groups": groups.astype(np.int32),
        "centres": clusters.centres(fine, weights, groups, table.experts),
    }


def _check_held(held: NDArray[np.bool_], share: float) -> None:
    if not held.any():
        raise TaskError(
            f"data.validation = {share}: nothing can be held out",
            "groups of near-duplicates smaller than that share of the samples",
            "lower partition.duplicates",
        )


def _checked(arrays: dict[str, NDArray[Any]], experts: int) -> dict[str, NDArray[Any]]:
    """The arrays, if there is a sample to train every expert on."""
    sizes = np.bincount(arrays["clusters"][~arrays["held_out"]], minlength=experts)
    if (sizes == 0).any():
        raise TaskError(
            f"no sample is left to train expert {int(sizes.argmin())} on",
            "samples in every cluster that are not held out",
            "lower data.validation or partition.experts",
        )
    return arrays
