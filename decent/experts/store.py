"""An ensemble's folder (signatures; the rest follows)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from torch import nn


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """config.json of a module's folder: how to build it again, and what it is."""

    network: str
    shape: tuple[int, ...]
    classes: int = 0
    outputs: int | None = None
    options: dict[str, Any] = {}
    # prediction: Prediction = Prediction()      comes with B's prediction.py
    ema: float | None = None
    steps: int = 0
    seed: int = 0
    loss: float | None = None
    digest: str = ""
    """xxh3-128 of the safetensors file; `save` fills it in"""


def save(folder: Path, module: nn.Module, record: Record) -> Record:
    """Write both files, weights first; the record with its digest."""
    raise NotImplementedError


def load(folder: Path, device: str = "cpu", digest: str | None = None) -> tuple[nn.Module, Record]:
    """Raises ModelError if damaged, of other shapes, or not of `digest`."""
    raise NotImplementedError


def expert_folder(folder: Path, k: int) -> Path:
    """DIR/expert_k."""
    return folder / f"expert_{k}"


class Pipeline:
    """experts, router (or None), manifest, settings, latent, pi, records; .ensemble(strategy)."""


def open_pipeline(folder: Path, device: str = "cpu", lazy: bool = False) -> Pipeline:
    """Raises TaskError/ModelError."""
    raise NotImplementedError
