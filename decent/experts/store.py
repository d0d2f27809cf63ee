"""An ensemble's folder, laid out as diffusers lays out a pipeline.

    DIR/model_index.json                         what is in it
        settings.toml  manifest.json  partition.safetensors  latent/  features/    by `partition`
        expert_0/ … expert_{K−1}/  router/  student/  dense/                       by training

A module's folder holds config.json, its `Record`, and diffusion_pytorch_model.safetensors; nothing
is pickled. The record says how to build the module again (`networks.build`), what it predicts, and
the digest of its tensors. Expert k is written by whoever trains it and by nobody else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn

from decent import __version__
from decent.config import Strict
from decent.errors import ModelError
from decent.experts import files, latent, manifest, networks, settings
from decent.experts.ensemble import Ensemble
from decent.experts.latent import Latent
from decent.experts.manifest import Manifest
from decent.experts.prediction import AsVelocity, Model, Prediction
from decent.experts.settings import Settings
from decent.experts.shelf import Shelf
from decent.experts.strategy import Strategy
from decent.folder import write_json
from decent.learning.devices import known

INDEX = "model_index.json"
LATENT, ROUTER, STUDENT, DENSE = "latent", "router", "student", "dense"


class Record(Strict, frozen=True):
    """config.json of a module's folder: how to build it again, and what it is."""

    network: str
    shape: tuple[int, ...]
    """of one sample"""
    classes: int = 0
    outputs: int | None = None
    """logits of a router; none: a velocity"""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    prediction: Prediction = Prediction()
    ema: float | None = None
    """of the weights kept; none: they are not averaged"""
    steps: int = 0
    seed: int = 0
    loss: float | None = None
    """at the end of training, where it was measured"""
    seconds: float | None = None
    """that its steps took"""
    multiply_adds: int | None = None
    """of one forward of one sample"""
    digest: str = ""
    """xxh3-128 of the safetensors file; `save` fills it in"""


def expert(k: int) -> str:
    """The name of expert `k`'s folder."""
    return f"expert_{k}"


def save(folder: Path, module: nn.Module, record: Record) -> Record:
    """Write `module` and its record, each whole or not at all; the record with its digest."""
    complete = msgspec.structs.replace(record, digest=files.save_weights(folder, module))
    files.save_config(folder, complete, class_name=record.network)
    return complete


def record(folder: Path) -> Record:
    """Of the module in `folder`. Raises ModelError if there is none, or a damaged one."""
    return files.load_config(folder, Record)


def load(folder: Path, device: str = "cpu", digest: str | None = None) -> tuple[nn.Module, Record]:
    """The module in `folder`, ready to be evaluated.

    Raises ModelError if there is none, if it is damaged or its tensors are not those of its
    record, or if it is not the one of `digest`; ConfigError for a device that is not there.
    """
    place = known(device)
    found = record(folder)
    if digest is not None and digest != found.digest:
        raise ModelError(f"{folder} has the digest {found.digest}", digest, "copy the right one")
    with torch.random.fork_rng(devices=[]):  # what it is initialised with is thrown away
        module = networks.build(
            found.network, found.shape, found.classes, found.outputs, **found.options
        )
    files.load_weights(folder, module, found.digest)
    return module.to(place).eval(), found


def trained(folder: Path, experts: int) -> dict[str, Record]:
    """The records of all modules that `folder` has, by name."""
    names = [*(expert(k) for k in range(experts)), ROUTER, STUDENT, DENSE]
    return {
        name: record(folder / name) for name in names if (folder / name / files.CONFIG).is_file()
    }


def write_index(folder: Path, experts: int) -> None:
    """model_index.json: the parts of the pipeline, and what loads each, as diffusers has them."""
    parts = {name: [__name__, load.__name__] for name in [*map(expert, range(experts)), ROUTER]}
    theirs = {"_class_name": "DecentPipeline", "_decent_version": __version__}
    write_json(folder / INDEX, theirs | parts)


@dataclass(frozen=True)
class Pipeline:
    """All that it takes to draw samples."""

    experts: Sequence[Model]
    """velocities of the linear path, whatever the networks predict"""
    router: nn.Module | None
    manifest: Manifest
    settings: Settings
    latent: Latent
    records: dict[str, Record]

    @property
    def pi(self) -> tuple[float, ...]:
        """The clusters' shares of the data [K]."""
        return self.manifest.pi

    @property
    def classes(self) -> int:
        """That experts and router are conditioned on; 0: none."""
        parts = [*map(expert, range(self.manifest.experts)), ROUTER]
        return next((self.records[name].classes for name in parts if name in self.records), 0)

    def ensemble(self, strategy: str | Strategy | None = None) -> Ensemble:
        """The experts as one model; of the settings' strategy if none is given."""
        chosen = self.settings.sampling.strategy if strategy is None else strategy
        return Ensemble(self.experts, self.router, self.pi, chosen)


def open_pipeline(folder: Path, device: str = "cpu", lazy: bool = False) -> Pipeline:
    """The ensemble in `folder`; `lazy`: an expert is read when it is first used, and need not be
    here until then, nor ever if it is served elsewhere.

    Raises TaskError for a folder that is none, ModelError where an expert is missing, where shapes
    differ, and where the router is one of another number of experts; ConfigError for a device that
    is not there.
    """
    place = known(device)
    divided = manifest.read(folder)
    encoder = latent.load(folder / LATENT)
    records = trained(folder, divided.experts)
    names = [expert(k) for k in range(divided.experts)]
    if not lazy:
        _check_complete(folder, names, records)
    _check_parts(folder, [name for name in (*names, ROUTER) if name in records], encoder, records)
    if ROUTER in records:
        _check_router(folder / ROUTER, records[ROUTER], divided)
    loaders = [
        partial(_velocity, folder / name, device, records[name].digest if name in records else None)
        for name in names
    ]
    return Pipeline(
        experts=Shelf(loaders, device=device).experts if lazy else [each() for each in loaders],
        router=load(folder / ROUTER, device)[0] if ROUTER in records else None,
        manifest=divided,
        settings=settings.load(folder / settings.FILE),
        latent=encoder.to(place),
        records=records,
    )


def _velocity(folder: Path, device: str, digest: str | None) -> nn.Module:
    module, found = load(folder, device, digest)
    return module if found.prediction == Prediction() else AsVelocity(module, found.prediction)


def _check_complete(folder: Path, names: list[str], records: dict[str, Record]) -> None:
    if missing := [name for name in names if name not in records]:
        raise ModelError(
            f"{folder} has no {', '.join(missing)}",
            f"{len(names)} trained experts",
            f"run `decent experts train {folder}`",
        )


def _check_parts(
    folder: Path, names: list[str], encoder: Latent, records: dict[str, Record]
) -> None:
    for name in names:
        _check_shape(folder / name, records[name], encoder)
        _check_classes(folder, name, names[0], records)
        if name != ROUTER and records[name].outputs is not None:
            raise ModelError(f"{folder / name} is a router", "an expert", "train it again")


def _check_router(folder: Path, found: Record, divided: Manifest) -> None:
    if found.outputs != divided.experts:
        raise ModelError(
            f"{folder} tells {found.outputs} experts apart",
            f"{divided.experts}, as many as there are",
            f"run `decent experts router {folder.parent}`",
        )


def _check_shape(folder: Path, found: Record, encoder: Latent) -> None:
    if found.shape != encoder.shape:
        raise ModelError(
            f"{folder} is of samples {list(found.shape)}",
            f"{list(encoder.shape)}, the latents of this ensemble",
            "take experts of one partition",
        )


def _check_classes(folder: Path, name: str, first: str, records: dict[str, Record]) -> None:
    if records[name].classes != records[first].classes:
        raise ModelError(
            f"{folder / name} is conditioned on {records[name].classes} classes",
            f"{records[first].classes}, as {first}",
            "train all of one setting data.conditional",
        )
