"""How good an ensemble is on samples that nothing was trained on, by its folder.

Held out are the partition's own, or the data's tests; times and noise are the same for every model,
so that their losses compare pair by pair (`metrics.PairedLoss`). Of a router: cross-entropy,
accuracy and entropy by time, and how near its mean at t = 1 comes to π.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from decent.errors import TaskError
from decent.experts import partition, store
from decent.experts.devices import device_of
from decent.experts.likelihood import bits_per_dimension, log_likelihood
from decent.experts.metrics import PairedLoss, estimate
from decent.experts.partition import Divided, reopen
from decent.experts.prediction import Model
from decent.experts.router import TOLERANCE, calibration, nats, prior_error
from decent.experts.work import labels
from decent.folder import write_json
from decent.schedule import stream

STRATEGIES = ("full", "nucleus:0.9", "threshold:0.1", "top_k:2", "top_k:1")
COUNT = 10_000
CALIBRATION = "calibration.json"


def evaluate(
    folder: Path,
    strategies: Sequence[str] = STRATEGIES,
    count: int = COUNT,
    device: str = "cpu",
    bits: int = 0,
) -> dict[str, Any]:
    """The paired loss of the ensemble by each of `strategies`, and of dense and student, on at most
    `count` held-out samples: name, loss, error, difference to the first and its error, active
    experts and multiply-adds per evaluation; and bits for each dimension of the latents, values one
    unit apart, on the first `bits` samples. Raises InputError if something is missing."""
    pipeline, divided = store.open_pipeline(folder, device), reopen(folder)
    x, condition, _ = held_out(divided, folder, count)
    paired = PairedLoss(x, condition, divided.settings.seed)
    singles = [name for name in (store.DENSE, store.STUDENT) if name in pipeline.records]
    losses, active, costs, likely = {}, {}, {}, {}
    given = x[:bits], None if condition is None else condition[:bits]
    for name in singles:
        module = store.load(folder / name, device)[0]
        losses[name], likely[name] = paired(module), _bits(module, *given)
        active[name], costs[name] = 1.0, pipeline.records[name].multiply_adds
    each = pipeline.records[store.expert(0)].multiply_adds or 0
    routing = pipeline.records[store.ROUTER].multiply_adds if pipeline.router else 0
    for name in strategies:
        ensemble = pipeline.ensemble(name)
        losses[name], active[name] = paired(ensemble), ensemble.active
        costs[name] = round(active[name] * each + (routing or 0))
        likely[name] = _bits(ensemble, *given)
    first = next(iter(losses))
    rows = [
        {
            "name": name, **estimate(loss)._asdict(),
            "difference": estimate(loss - losses[first])._asdict() if name != first else None,
            "active": active[name], "multiply_adds": costs[name], "bits": likely[name],
        }
        for name, loss in losses.items()
    ]  # fmt: skip
    return {"samples": len(x), "against": first, "rows": rows}


def _bits(model: Model, x: Tensor, condition: Tensor | None) -> dict[str, float] | None:
    """Bits per dimension, mean and error, by Hutchinson's estimate; none of no samples."""
    if not len(x):
        return None
    device = device_of(model)
    own = None if condition is None else condition.to(device)
    nats = log_likelihood(model, x.to(device), own, divergence="hutchinson").cpu()
    return estimate(bits_per_dimension(nats, x[0].numel()))._asdict()


def held_out(
    divided: Divided, folder: Path, count: int = COUNT
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """At most `count` held-out samples as latents [n, *Z]; their labels [n] where the models are
    given them; their clusters [n] where these are known. Raises TaskError if nothing is held out.
    """
    which = divided.manifest.validation()
    rng = stream(divided.settings.seed, "held out")
    if len(which):
        which = np.sort(rng.permutation(which)[:count])
        clusters = torch.from_numpy(divided.manifest.clusters()[which])
        return divided.latents(which), labels(divided, which), clusters
    test = divided.data.test
    if test is None:
        raise TaskError(
            f"{divided.data.name} has no tests, and nothing of it is held out",
            "samples that nothing was trained on", "set data.validation and partition again",
        )  # fmt: skip
    rows = torch.from_numpy(np.sort(rng.permutation(len(test))[:count]))
    x, own = test.rows(rows), None if test.labels is None else test.labels[rows]
    given = own if divided.settings.data.conditional else None
    return divided.latent.encode(x), given, _assigned(divided, folder, x, own)


def _assigned(divided: Divided, folder: Path, x: Tensor, own: Tensor | None) -> Tensor | None:
    """The clusters [n] of samples x with labels `own`; of parts drawn by chance there are none."""
    if divided.manifest.method == "features":
        return torch.from_numpy(partition.assign(folder, x))
    if divided.manifest.method == "labels" and own is not None:
        return torch.from_numpy(divided.manifest.assign_labels(own.numpy()))
    return None


def router_report(folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Of the router in `folder`: its error at t = 1, and a row for each part of [0, 1]; kept beside
    it as calibration.json."""
    divided, (router, _) = reopen(folder), store.load(folder / store.ROUTER, device)
    pi, shape = divided.manifest.pi, divided.latent.shape
    training = divided.manifest.training()
    error = prior_error(router, pi, shape, labels(divided, training))
    report: dict[str, Any] = {
        "prior_error": error, "tolerance": TOLERANCE, "entropy_of_pi": nats(pi),
        "held_out": True,
    }  # fmt: skip
    found = _known(divided, folder)
    if found is None:
        report["held_out"] = False
        which = training[:COUNT]
        clusters = torch.from_numpy(divided.manifest.clusters()[which])
        found = divided.latents(which), labels(divided, which), clusters
    x, condition, clusters = found
    report["rows"] = [asdict(row) for row in calibration(router, x, clusters, condition)]
    write_json(folder / store.ROUTER / CALIBRATION, report)
    return report


def _known(divided: Divided, folder: Path) -> tuple[Tensor, Tensor | None, Tensor] | None:
    """Held-out samples whose clusters are known, if there are any."""
    if not len(divided.manifest.validation()) and divided.data.test is None:
        return None
    x, condition, clusters = held_out(divided, folder)
    return None if clusters is None else (x, condition, clusters)
