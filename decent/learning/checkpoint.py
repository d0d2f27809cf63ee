"""Models as safetensors files: whole or absent, and merged tensor by tensor.

A file is eight bytes N (uint64, little-endian), N bytes of JSON that give each tensor's dtype,
shape and place, then the tensors' bytes (https://github.com/huggingface/safetensors). Tied tensors
are kept once; the metadata says under which other names they go. A merge is

    x̄ = Σ_i w_i·x_i / Σ_i w_i            in float64, rounded once to the files' dtype,

for all floating-point tensors but the variances of norm layers, which are pooled, E[x²] − E[x]²;
integer and boolean tensors come from the first file. It writes as it goes: a few copies of the
largest tensor are all that it holds.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from decent.errors import ModelError
from decent.merge import average, check_weights

ALIASES = "decent.aliases"
Opened = tuple[Path, Any]  # a file's path, and safetensors' handle on it


def save_model(path: Path, model: nn.Module, metadata: Mapping[str, str] | None = None) -> None:
    """Write the parameters and buffers of `model`, and `metadata`, to `path`."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(f"state {name} is a {type(value).__name__}", "tensors only")
        place = (value.data_ptr(), value.shape, value.stride(), value.dtype, value.device)
        kept = seen.setdefault(place, name) if value.numel() else name
        if kept == name:
            tensors[name] = value.contiguous()
        else:
            aliases[name] = kept
    texts = {**(metadata or {}), ALIASES: json.dumps(aliases)}
    with _replacing(path) as temporary:
        save_file(tensors, temporary, texts)


def load_state(path: Path) -> dict[str, Tensor]:
    """What `model.load_state_dict` takes, tied tensors under all their names."""
    with _opened([path]) as [(_, file)]:
        state: dict[str, Tensor] = {name: file.get_tensor(name) for name in _names(file)}
    try:
        aliases = json.loads(load_metadata(path).get(ALIASES, "{}"))
        return state | {alias: state[kept] for alias, kept in aliases.items()}
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} has unusable {ALIASES} ({error!r})", "names it holds") from error


def load_metadata(path: Path) -> dict[str, str]:
    """The texts kept beside the tensors."""
    with _opened([path]) as [(_, file)]:
        return dict(file.metadata() or {})


def merge_files(paths: Sequence[Path], out: Path, weights: Sequence[float] | None = None) -> None:
    """Write the mean of the models in `paths`, by `weights` or alike, to `out`.

    The files must agree in names, shapes and dtypes; on any error `out` is left as it was.
    """
    chosen = [1.0] * len(paths) if weights is None else list(weights)
    shares = check_weights(chosen, len(paths))
    with _opened(paths) as files:
        for file in files:
            _check_alike(file, files[0])
        header = _header(paths[0])
        header["__metadata__"] = {
            **header.get("__metadata__", {}),
            "decent.sources": json.dumps([str(path) for path in paths]),
            "decent.weights": json.dumps(chosen),
        }
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with _replacing(out) as temporary, temporary.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for name in sorted(_names(files[0][1]), key=lambda n: header[n]["data_offsets"]):
                merged = _merged(name, files, shares).contiguous().reshape(-1)
                target.write(merged.view(torch.uint8).numpy().data)


def _merged(name: str, files: list[Opened], weights: Sequence[float]) -> Tensor:
    first: Tensor = files[0][1].get_tensor(name)
    if not first.is_floating_point():
        return first
    stem = name.removesuffix("running_var")
    if stem == name or stem + "running_mean" not in _names(files[0][1]):
        return average(_each(name, files), weights)
    pairs = zip(_each(name, files), _each(stem + "running_mean", files), strict=True)
    second = average((v.double() + m.double() ** 2 for v, m in pairs), weights)
    mean = average((m.double() for m in _each(stem + "running_mean", files)), weights)
    return (second - mean**2).clamp(min=0).to(first.dtype)


def _each(name: str, files: list[Opened]) -> Iterator[Tensor]:
    """The tensor `name` of one file after the other."""
    for path, file in files:
        tensor: Tensor = file.get_tensor(name)
        if tensor.double().isnan().any():
            raise ModelError(f"{path}: tensor {name} holds NaN", remedy="leave that model out")
        yield tensor


def _check_alike(opened: Opened, first: Opened) -> None:
    """A file holds what the first does, and that can be averaged."""
    (path, file), (first_path, first_file) = opened, first
    if odd := sorted(_names(file) ^ _names(first_file)):
        lacking, other = (path, first_path) if odd[0] in _names(first_file) else (first_path, path)
        raise ModelError(f"{lacking} has no tensor {odd[0]}", f"it, as in {other}")
    for name in _names(file):
        given, expected = _kind(file, name), _kind(first_file, name)
        if given != expected:
            raise ModelError(f"{path}: tensor {name} is {given}", f"{expected}, as in {first_path}")
        if given.startswith("C"):
            raise ModelError(f"{path}: tensor {name} is {given}", "real numbers")


def _names(file: Any) -> set[str]:
    return set(file.keys())


def _kind(file: Any, name: str) -> str:
    """Dtype and shape in safetensors' terms, without reading the tensor: `F32[3, 4]`."""
    part = file.get_slice(name)
    return f"{part.get_dtype()}{list(part.get_shape())}"


def _header(path: Path) -> dict[str, Any]:
    """The header of a file that safetensors has opened, so that it is known to be sound."""
    with path.open("rb") as file:
        header: dict[str, Any] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[Opened]]:
    with ExitStack() as stack:
        files = []
        for path in paths:
            try:
                files.append((path, stack.enter_context(safe_open(path, framework="pt"))))
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path}: {error}", "a readable safetensors file") from error
        yield files


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place unless something goes wrong."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
