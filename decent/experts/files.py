"""The two files of a module's folder, as diffusers names them: what it is, and its tensors.

    config.json                              a record, with the digest of the other file
    diffusion_pytorch_model.safetensors      the tensors; tied ones are kept once

Each is written beside and renamed once it is on the disk; the tensors first, so that a record never
speaks of tensors that are not there. Keys of config.json that start with `_` are other programs'.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import xxhash
from torch import nn

from decent import folder as whole
from decent.errors import ModelError
from decent.learning.checkpoint import load_state, save_model

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
PIECE = 1 << 20  # bytes read at once
Facts = TypeVar("Facts", bound=msgspec.Struct)


def digest(path: Path) -> str:
    """xxh3-128 of a file, in hexadecimal. Raises ModelError if it cannot be read."""
    state = xxhash.xxh3_128()
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                state.update(piece)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "a file of this ensemble") from None
    return state.hexdigest()


def save_config(home: Path, facts: msgspec.Struct, **others: Any) -> None:
    """Write config.json; `others` are the keys of other programs, without their `_`."""
    theirs = {f"_{key}": value for key, value in others.items()}
    whole.write_json(home / CONFIG, theirs | msgspec.to_builtins(facts))


def load_config(home: Path, kind: type[Facts]) -> Facts:
    """Raises ModelError if there is none, or one that is not of this `kind`."""
    path = home / CONFIG
    try:
        keys = json.loads(path.read_text())
        return msgspec.convert({k: v for k, v in keys.items() if k[:1] != "_"}, kind)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}", "a folder that decent has written") from None
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: {error}", "a config.json that decent has written") from None


def save_weights(home: Path, module: nn.Module) -> str:
    """Write the tensors of `module`; their digest, the same for the same tensors."""
    save_model(home / WEIGHTS, module)  # no texts beside them: safetensors has these in any order
    return digest(home / WEIGHTS)


def load_weights(home: Path, module: nn.Module, expected: str) -> None:
    """Put the tensors into `module`. Raises ModelError unless the file has the digest `expected`,
    and the module's names and shapes."""
    path = home / WEIGHTS
    found = digest(path)
    if found != expected:
        raise ModelError(
            f"{path} has the digest {found}",
            expected,
            "it was changed or half copied: copy the folder again, or train anew",
        )
    try:
        module.load_state_dict(load_state(path))
    except RuntimeError as error:
        raise ModelError(
            f"{path}: {error}", f"the tensors that {home / CONFIG} speaks of"
        ) from None
