"""What k-means sees of a sample: features [n, d], from a model called by name.

    "pca:SIZE"              principal components of the data, fitted once and saved
    "latent"                the latents that the experts are trained on
    "pixels"                the samples themselves, flat
    "transformers:MODEL"    such as transformers:facebook/dinov2-small, at 224×224, normed to 1
    "package.module:function" or "path/to/file.py:function"     float32 [m, *S] → [m, d]

A feature model is a pure function of a sample, so that new samples can be given to clusters later.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent import plugins
from decent.errors import ConfigError, MissingExtra, TaskError
from decent.experts.latent import Latent, components, latent, load
from decent.experts.sources import Data

FOLDER = "features"
NAMES = '"pca:SIZE", "pixels", "latent", "transformers:MODEL", or package.module:function'
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, red, green, blue
SIDE = 224  # pixels
Matrix = NDArray[np.float32]


class Features:
    """A feature model, and the name it is known by."""

    def __init__(
        self, name: str, model: Callable[[Tensor], Any], fitted: Latent | None = None
    ) -> None:
        self.name, self._model, self._fitted = name, model, fitted

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Matrix:
        """Features [m, d] of x [m, *S]. Raises TaskError unless finite, one row a sample."""
        rows: Matrix = np.asarray(self._model(x), np.float32)
        if rows.ndim != 2 or len(rows) != len(x):
            raise TaskError(
                f"features {self.name!r} of {len(x)} samples have shape {rows.shape}",
                f"({len(x)}, d)",
            )
        if not np.isfinite(rows).all():
            raise TaskError(f"features {self.name!r} are not finite", "finite numbers")
        return rows

    def save(self, folder: Path) -> None:
        """What was fitted, if anything was."""
        if self._fitted is not None:
            self._fitted.save(folder / FOLDER)

    def all(self, data: Data, path: Path) -> Matrix:
        """Features of all the data [n, d], in a file that stays mapped."""
        first = self(data.rows(slice(0, 1)))
        shape = (len(data), first.shape[1])
        mapped: Matrix = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        start = 0
        for chunk in data.chunks():
            mapped[start : start + len(chunk)] = self(chunk)
            start += len(chunk)
        return mapped


def features(name: str, data: Data, encoder: Latent) -> Features:
    """The feature model called `name`; "pca" is fitted to `data`, unless that is the encoder.

    Raises ConfigError for an unknown name, MissingExtra where transformers is not installed.
    """
    if _has_own(name, encoder):
        fitted = latent(name, data)
        return Features(name, _flat(fitted), fitted)
    return _unfitted(name, encoder)


def restore(name: str, folder: Path, encoder: Latent) -> Features:
    """The one that a partition in `folder` was made with."""
    if _has_own(name, encoder):
        return Features(name, _flat(load(folder / FOLDER)))
    return _unfitted(name, encoder)


def check(name: str) -> None:
    """Raises ConfigError if `name` cannot be that of a feature model."""
    if name.startswith("pca:"):
        components(name)
    elif name not in ("pixels", "latent") and not plugins.is_reference(name):
        raise ConfigError(f"partition.features = {name!r}", NAMES)


def _has_own(name: str, encoder: Latent) -> bool:
    """Whether components are to be fitted that are not those of the encoder."""
    return name.startswith("pca:") and name != encoder.kind


def _flat(encoder: Latent) -> Callable[[Tensor], Tensor]:
    return lambda x: encoder.encode(x).flatten(1)


def _unfitted(name: str, encoder: Latent) -> Features:
    if name in ("latent", encoder.kind):
        return Features(name, _flat(encoder))
    if name == "pixels":
        return Features(name, lambda x: x.flatten(1))
    if name.startswith("transformers:"):
        return Features(name, _transformer(name.partition(":")[2]))
    if not plugins.is_reference(name):
        raise ConfigError(f"partition.features = {name!r}", NAMES)
    found = plugins.load(name, ConfigError, "features")
    if not callable(found):
        raise ConfigError(f"features {name!r} is {found!r}", "a function of samples")
    return Features(name, found() if isinstance(found, type) else found)


def _transformer(model: str) -> Callable[[Tensor], Tensor]:
    """The class token of a vision transformer, normed to 1, of images in [−1, 1]."""
    try:
        automatic = importlib.import_module("transformers").AutoModel
    except ImportError:
        raise MissingExtra(
            f"features transformers:{model}",
            "transformers, which is not installed",
            "install it (pip install transformers), or take partition.features = pca:64",
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        net = automatic.from_pretrained(model).eval().to(device)
    except (OSError, ValueError) as error:
        raise ConfigError(f"transformers:{model}: {error}", "a model it can load") from None

    def tokens(x: Tensor) -> Tensor:
        parts = [
            net(pixel_values=_viewed(part).to(device)).last_hidden_state[:, 0]
            for part in torch.split(x, 64)
        ]
        return torch.nn.functional.normalize(torch.cat(parts).float(), dim=1).cpu()

    return tokens


def _viewed(x: Tensor) -> Tensor:
    """Images [m, C, H, W] in [−1, 1], of one or three channels, as such a model wants them."""
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise TaskError(f"samples of shape {list(x.shape)}", "images [m, 1 or 3, H, W]")
    mean, deviation = torch.tensor([MEAN, DEVIATION])[:, :, None, None]
    large = torch.nn.functional.interpolate(
        (x.expand(-1, 3, -1, -1) + 1) / 2, (SIDE, SIDE), mode="bicubic", antialias=True
    )
    view: Tensor = (large - mean) / deviation
    return view
