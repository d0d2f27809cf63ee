"""How good a flow and its samples are, and what they cost.

The paired loss is the flow-matching loss on fixed (x₀, t, ε). For any field v it is
E‖v − u(·|x₀)‖² = E‖v − u‖² + a constant of the data, so the loss of an ensemble and that of one
model compare directly, and the error of their difference is far below that of either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from decent.errors import ConfigError
from decent.experts.devices import at, device_of
from decent.experts.draw import Draw
from decent.experts.ensemble import ensemble_in
from decent.experts.path import LINEAR, Path, noised, velocity
from decent.experts.prediction import Model
from decent.schedule import stream


class Estimate(NamedTuple):
    """A mean and its standard error."""

    mean: float
    error: float


class PairedLoss:
    """The flow-matching loss of any model on the same x₀ [N, *S], noise and times; batches move to
    where the model is, and losses come back.

    Times are stratified over `low` to `high`, one in each of N equal parts, in random order.
    """

    def __init__(
        self,
        x0: Tensor,
        condition: Tensor | None = None,
        seed: int = 0,
        path: Path = LINEAR,
        low: float = 0.01,
        high: float = 0.99,
    ) -> None:
        drawn, count = stream(seed, "paired"), len(x0)
        parts = torch.from_numpy((drawn.permutation(count) + drawn.random(count)) / count)
        self.t = (low + (high - low) * parts).to(x0)
        noise = torch.from_numpy(drawn.standard_normal(x0.shape)).to(x0)
        self.x, self.u = noised(path, x0, noise, self.t), velocity(path, x0, noise, self.t)
        self.condition, self.seed = condition, seed

    @torch.no_grad()
    def __call__(self, model: Model, batch: int = 2048) -> Tensor:
        """The loss of each pair [N], the mean over its values."""
        ensemble, device, losses = ensemble_in(model), device_of(model), []
        for start in range(0, len(self.t), batch):
            rows = torch.arange(len(self.t))[start : start + batch]
            own = None if self.condition is None else self.condition[rows]
            share = at(device, self.x[rows], self.t[rows], own)
            if ensemble is None:
                answer = model(*share)
            else:
                with ensemble.following(Draw.of(self.seed, rows.tolist())):
                    answer = model(*share)
            losses.append((answer.to(self.u.device) - self.u[rows]).square().flatten(1).mean(1))
        return torch.cat(losses)

    def by_time(self, losses: Tensor, bins: int = 10) -> list[float]:
        """The mean of `losses` [N] in each of `bins` equal parts of [0, 1]; NaN of none."""
        at = (self.t * bins).long().clamp(max=bins - 1)
        return [losses[at == i].mean().item() for i in range(bins)]


def estimate(values: Tensor) -> Estimate:
    """Of losses [N], or of the difference of two models' losses."""
    values = values.double()
    return Estimate(values.mean().item(), (values.std() / math.sqrt(len(values))).item())


def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of features [N, D] and [M, D] as Gaussians, in float64:
    ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a^½ Σ_b Σ_a^½)^½). Heusel et al., arXiv 1706.08500.

    Raises ConfigError for fewer than two rows, or other numbers of features.
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ConfigError(f"features {tuple(a.shape)} and {tuple(b.shape)}", "[N, D] and [M, D]")
    a, b = a.double(), b.double()
    covered_a, covered_b = (torch.cov(each.T).reshape(len(each.T), -1) for each in (a, b))
    values, axes = torch.linalg.eigh(covered_a)
    root = axes * values.clamp(min=0).sqrt() @ axes.T
    shared = torch.linalg.eigvalsh(root @ covered_b @ root).clamp(min=0).sqrt().sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return float(apart + covered_a.trace() + covered_b.trace() - 2 * shared)


def occupancy(clusters: Tensor, pi: Sequence[float]) -> float:
    """Total variation, 0 to 1, between the shares of `clusters` [N] among samples and `pi` [K]."""
    shares = torch.bincount(clusters, minlength=len(pi)).double() / len(clusters)
    return 0.5 * (shares - torch.tensor(pi, dtype=torch.float64)).abs().sum().item()


@torch.no_grad()
def multiply_adds(module: nn.Module, shape: Sequence[int], condition: Tensor | None = None) -> int:
    """Multiply-adds of matrix products, convolutions and attention in one forward of one sample of
    `shape`, and of `condition` [1] if given."""
    like = next(module.parameters(), torch.zeros(()))
    x = torch.zeros(1, *shape, dtype=like.dtype, device=like.device)
    with FlopCounterMode(display=False) as counter:
        module(*at(x.device, x, torch.full_like(x.flatten()[:1], 0.5), condition))
    return int(counter.get_total_flops()) // 2
