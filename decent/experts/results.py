"""Samples as files: a picture or tensors, and beside it a JSON of how they came about.

A .safetensors file holds `x` [N, *S], `labels` [N] where there are any, and in its header the same
metadata as the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from decent.errors import ConfigError
from decent.experts import pictures
from decent.folder import write_atomic, write_json

SUFFIXES = (".png", ".safetensors")


def check(path: Path, shape: Sequence[int]) -> None:
    """Before the work: raises ConfigError if samples of `shape` cannot be written to `path`."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"-o {path}", "a file that ends in " + " or ".join(SUFFIXES))
    if path.suffix == ".png":
        pictures.grid(torch.zeros(1, *shape))


def labels(label: str | None, count: int, classes: int) -> Tensor | None:
    """A class [count] for each sample: the one named, or "all" in turn; none for none. Raises
    ConfigError for what is no class of `classes`."""
    if label is None:
        return None
    if label == "all" and classes:
        return torch.arange(count) % classes
    if not label.isdecimal() or int(label) >= classes:
        expected = f"0 to {classes - 1}, or all" if classes else "none: the ensemble has no classes"
        raise ConfigError(f"--label {label}", expected)
    return torch.full((count,), int(label))


def write(path: Path, x: Tensor, metadata: dict[str, Any], labels: Tensor | None = None) -> None:
    """Write samples x [N, *S] to `path`, and `metadata` beside it as JSON."""
    if path.suffix == ".png":
        pictures.save(x, path)
    else:
        tensors = {"x": x.contiguous().cpu()} | ({} if labels is None else {"labels": labels.cpu()})
        write_atomic(path, save(tensors, {"samples": json.dumps(metadata)}))
    write_json(path.with_suffix(".json"), metadata)
