"""What is trained in an ensemble's folder, by name: built from its seed, trained, and stored.

    expert_k    a flow on cluster k alone            dense      a flow on all of the data
    router      p(k | x_t, t, c)                     student    a flow taught by the experts

`train(folder, name)` does one of them, the same to the bit wherever, with whatever beside it and
however often it is broken off: all that is random follows from (seed, name). While it is at work
there is a checkpoint `training/NAME.safetensors`; at the end there is `NAME/`, and no checkpoint.

Dense takes the batches of all K experts together, the student a quarter of that, so that dense and
experts see as much data, and take as many steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from decent.errors import ConfigError, ModelError
from decent.experts import files, networks, store
from decent.experts.distil import Taught
from decent.experts.flow import Flow
from decent.experts.metrics import multiply_adds
from decent.experts.partition import Divided, reopen
from decent.experts.router import PriorCorrected, Routing, generated
from decent.experts.settings import RouterTable, TrainingTable
from decent.experts.store import DENSE, ROUTER, STUDENT, Record
from decent.experts.training import Objective, Training
from decent.learning.devices import known
from decent.learning.trainer import torch_seed

PRIOR_CORRECTED = "prior_corrected"


@dataclass(frozen=True)
class Options:
    """What the command line may say beyond the settings."""

    steps: int | None = None
    """of dense and student"""
    batch_size: int | None = None
    """the same"""
    from_experts: int | None = None
    """samples that the experts draw for the router, in place of the data"""
    device: str = "cpu"
    """where to train; for `isolated.train` also several, with commas between"""


DEFAULTS = Options()


@dataclass(frozen=True)
class Work:
    """What one network is, and learns from."""

    seed: int
    shape: tuple[int, ...]
    classes: int
    outputs: int | None
    table: TrainingTable
    objective: Objective
    pi: tuple[float, ...]


def checkpoint(folder: Path, name: str) -> Path:
    """Of the training that goes on."""
    return folder / "training" / f"{name}.safetensors"


def finished(folder: Path, name: str) -> bool:
    """Whether it is trained, and not being trained again."""
    return (folder / name / files.CONFIG).is_file() and not checkpoint(folder, name).exists()


def train(
    folder: Path,
    name: str,
    on_step: Callable[[Training], object] | None = None,
    again: bool = False,
    options: Options = DEFAULTS,
) -> Record:
    """Train what `name` says in the ensemble's folder and store it there; its record.

    One that is trained is left as it is, unless `again`; one that was broken off goes on. Raises
    InputError for a device that is not there, and for a folder, data or settings that do not go
    together, RuntimeFault for a loss that is not finite.
    """
    device = known(options.device)
    if finished(folder, name) and not again:
        return store.record(folder / name)
    if again:
        checkpoint(folder, name).unlink(missing_ok=True)
    work = prepared(folder, name, options)
    training = Training(initial(work, name), work.objective, work.table, work.seed, name, device)
    training.run(on_step, checkpoint(folder, name))
    return keep(folder, name, work, training)


def keep(folder: Path, name: str, work: Work, training: Training) -> Record:
    """Store what is trained; there is nothing to go on from any more."""
    stored = _stored(folder / name, work, training)
    checkpoint(folder, name).unlink(missing_ok=True)
    return stored


def initial(work: Work, name: str) -> nn.Module:
    """A new network, of the seed, or from the checkpoint that the settings name."""
    table = work.table
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(work.seed, "experts", name, "init"))
        module = networks.build(
            table.network, work.shape, work.classes, work.outputs, **table.options
        )
    if table.start:
        try:
            module.load_state_dict(store.load(Path(table.start))[0].state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"start = {table.start!r}: {error}",
                f"a checkpoint of the network {table.network!r} for samples {list(work.shape)}",
            ) from None
    return module


def prepared(folder: Path, name: str, options: Options = DEFAULTS) -> Work:
    """What `name` learns from. Raises InputError if there is no such thing, or no such data."""
    if name == ROUTER and options.from_experts is not None:
        return _router_of_experts(folder, options.from_experts, options.device)
    divided = reopen(folder)
    if name == ROUTER:
        return _router(divided)
    if name in (DENSE, STUDENT):
        return _dense(divided, name, folder, options)
    found = {store.expert(k): k for k in range(divided.manifest.experts)}
    if name not in found:
        raise ConfigError(f"no {name} in {folder}", f"{', '.join(found)}, router, dense or student")
    return _flow(divided, divided.manifest.indices(found[name]), divided.settings.expert)


def expert(divided: Divided, k: int, steps: int, batch_size: int) -> Work:
    """What expert k learns from, in so many steps, whatever the settings say of these."""
    table = msgspec.structs.replace(divided.settings.expert, steps=steps, batch_size=batch_size)
    return _flow(divided, divided.manifest.indices(k), table)


def labels(divided: Divided, which: np.ndarray[Any, Any]) -> Tensor | None:
    """Of the samples `which`, if the models are given them."""
    if not divided.settings.data.conditional or divided.data.labels is None:
        return None
    return divided.data.labels[torch.from_numpy(which)]


def _flow(divided: Divided, which: np.ndarray[Any, Any], table: TrainingTable) -> Work:
    objective = Flow(divided.latents(which), labels(divided, which), table)
    return _of(divided, table, objective)


def _of(
    divided: Divided, table: TrainingTable, objective: Objective, outputs: int | None = None
) -> Work:
    classes = divided.manifest.classes if divided.settings.data.conditional else 0
    seed, shape = divided.settings.seed, divided.latent.shape
    return Work(seed, shape, classes, outputs, table, objective, divided.manifest.pi)


def _dense(divided: Divided, name: str, folder: Path, options: Options) -> Work:
    table, which = divided.settings.expert, divided.manifest.training()
    whole = table.batch_size * divided.manifest.experts
    size = whole if name == DENSE else max(whole // 4, table.batch_size)
    table = msgspec.structs.replace(
        table, steps=options.steps or table.steps, batch_size=options.batch_size or size, start=""
    )
    if name == DENSE:
        return _flow(divided, which, table)
    clusters = torch.from_numpy(divided.manifest.clusters()[which])
    experts = store.open_pipeline(folder, options.device).experts
    taught = Taught(divided.latents(which), clusters, labels(divided, which), experts, table)
    return _of(divided, table, taught)


def _router(divided: Divided) -> Work:
    table, which = divided.settings.router, divided.manifest.training()
    clusters = torch.from_numpy(divided.manifest.clusters()[which])
    objective = Routing(divided.latents(which), clusters, labels(divided, which), table)
    return _of(divided, table, objective, divided.manifest.experts)


def _router_of_experts(folder: Path, count: int, device: str) -> Work:
    """Without the data: it may be elsewhere, each part with its expert."""
    pipeline = store.open_pipeline(folder, device)
    chosen, pi, shape = pipeline.settings, pipeline.pi, pipeline.latent.shape
    counts = pipeline.manifest.label_counts if chosen.data.conditional else None
    if counts == ():
        raise ConfigError(
            f"--from-experts with data.conditional = true, but {folder} counts no labels",
            "label_counts in manifest.json: how many of each label each expert has",
            "partition again, or train the router on the data",
        )
    x, clusters, labels = generated(pipeline.experts, pi, count, shape, chosen.seed, counts)
    objective = Routing(x, clusters, labels, chosen.router)
    return Work(chosen.seed, shape, pipeline.classes, len(pi), chosen.router, objective, pi)


def _stored(folder: Path, work: Work, training: Training) -> Record:
    module, table = training.trained(), work.table
    condition = torch.zeros(1, dtype=torch.int64) if work.classes else None
    record = Record(
        network=table.network, shape=work.shape, classes=work.classes, outputs=work.outputs,
        options=table.options, ema=table.ema or None, steps=training.steps, seed=work.seed,
        loss=training.loss, seconds=round(training.seconds, 3),
        multiply_adds=multiply_adds(module, work.shape, condition),
    )  # fmt: skip
    if isinstance(table, RouterTable) and table.balanced:
        module = PriorCorrected.of(module, work.pi)
        inner = {"network": table.network, "options": table.options}
        record = msgspec.structs.replace(record, network=PRIOR_CORRECTED, options=inner)
    return store.save(folder, module, record)
