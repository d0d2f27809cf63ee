"""Norm statistics at a merge: average, recalibrate or leave local.

Batch norm keeps a running mean μ and variance σ² of its inputs beside the vector. Merged weights
make new inputs, so the old statistics are wrong by more than noise. Three policies:

- `recalibrate`: set the merged weights, then measure again on a few batches (the default where a
  model has batch norm; Zhu et al., arXiv 2507.06542, code; Izmailov et al., arXiv 1803.05407);
- `average`: the weighted mean of (μ, E[x²] = σ² + μ²) over workers, which are the statistics of the
  data pooled (to n/(n−1), as torch keeps the unbiased σ²);
- `local`: every worker keeps its own.

Counters (`num_batches_tracked`) are never averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from decent.errors import ModelError
from decent.learning.modes import evaluation

Policy = Literal["average", "recalibrate", "local"]


def has_batch_norm(model: nn.Module) -> bool:
    """Whether `model` keeps running statistics."""
    return bool(_layers(model))


def moments(model: nn.Module) -> NDArray[np.float64]:
    """(μ, E[x²]) of every batch norm in module order, channel by channel, as one vector."""
    parts = [np.empty(0)]
    for mean, variance in map(_statistics, _layers(model)):
        m, v = mean.double().cpu().numpy(), variance.double().cpu().numpy()
        parts += [m, v + m**2]
    return np.concatenate(parts)


def load_moments(model: nn.Module, vector: NDArray[np.floating]) -> None:
    """Set running means and variances from what `moments` returns, or a weighted mean of such."""
    pairs = [_statistics(layer) for layer in _layers(model)]
    expected = sum(2 * mean.numel() for mean, _ in pairs)
    if vector.shape != (expected,) or not np.isfinite(vector).all():
        raise ModelError(f"norm moments of shape {vector.shape}", f"{expected} finite values")
    rest = torch.tensor(vector, dtype=torch.float64)
    for mean, variance in pairs:
        m, second, rest = torch.split(
            rest, [mean.numel(), mean.numel(), len(rest) - 2 * mean.numel()]
        )
        mean.copy_(m)
        variance.copy_((second - m**2).clamp(min=0))


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], object] | None = None,
    limit: int = 32,
) -> None:
    """Measure the running statistics of `model` anew: the plain mean over at most `limit` batches.

    `forward(model, batch)` runs one batch (`task.loss` will do); without it, the batch or its first
    part is the input. Weights, flags, momenta and torch's random state are left as they were.
    """
    run = forward or _forward
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)), evaluation(model):
        some = list(islice(batches, limit))
        if not some:
            raise ModelError("no batch to measure norm statistics on", "at least one")
        with _measuring(model):
            for batch in some:
                run(model, batch)


@contextmanager
def _measuring(model: nn.Module) -> Iterator[None]:
    """Batch norm reset and in training mode, every batch counting alike."""
    momenta = [(layer, layer.momentum) for layer in _layers(model)]
    for layer, _ in momenta:
        layer.reset_running_stats()
        layer.momentum, layer.training = None, True
    try:
        yield
    finally:
        for layer, momentum in momenta:
            layer.momentum = momentum


def _forward(model: nn.Module, batch: Any) -> object:
    return model(batch[0] if isinstance(batch, (tuple, list)) else batch)


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    return cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var)
