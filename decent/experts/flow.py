"""Flow matching: the loss of an expert, and the times it is taken at.

    L = E ‖v(x_t, t, c) − u_t(x_t | x₀)‖² / d,    x_t = α_t·x₀ + σ_t·ε,    u_t = α'_t·x₀ + σ'_t·ε

(Lipman et al., arXiv 2210.02747; on the linear path u = ε − x₀). Its minimiser is the marginal
flow, and for any v it differs from E‖v − u_t(x_t)‖²/d by a constant that depends on data and path
alone: held-out losses of one model and of an ensemble can be compared.

Times: uniform, or t = 1/(1 + e^−z), z ~ N(mean, std) (Esser et al., arXiv 2403.03206, §3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from decent.errors import ConfigError
from decent.experts.devices import at, device_of
from decent.experts.path import LINEAR, Path, noised, velocity
from decent.experts.prediction import Model
from decent.experts.settings import TrainingTable

TIMES = 'times = "uniform", "logit_normal" or "logit_normal:MEAN:STD" with STD > 0'


def flow_loss(
    model: Model,
    x0: Tensor,
    noise: Tensor,
    t: Tensor,
    condition: Tensor | None = None,
    path: Path = LINEAR,
    reduce: bool = True,
) -> Tensor:
    """The mean square error of `model`'s velocity, over all elements of x0, noise [N, *S] at
    t [N]; without `reduce` of each row, [N]. All are where the model is."""
    target = velocity(path, x0, noise, t)
    answer = model(noised(path, x0, noise, t), t, condition)
    if reduce:
        return mse_loss(answer, target)
    return (answer - target).square().flatten(1).mean(1)


@dataclass(frozen=True)
class Flow:
    """What an expert descends on: its loss on batches of samples x [n, *Z], with their labels [n]
    where it is given them. All is drawn from torch's global generator."""

    x: Tensor
    labels: Tensor | None
    table: TrainingTable

    def __call__(self, module: nn.Module) -> Tensor:
        rows = torch.randint(len(self.x), (self.table.batch_size,))
        return self.loss(module, self.x[rows], None if self.labels is None else self.labels[rows])

    def loss(self, module: Model, x: Tensor, labels: Tensor | None) -> Tensor:
        """On one batch, which is moved to where the module is."""
        device = device_of(module)
        t, noise = draw_times(len(x), self.table.times), torch.randn_like(x)
        condition = dropped(labels, self.table.drop_condition)
        x, t, condition = at(device, x, t, condition)
        return flow_loss(module, x, noise.to(device), t, condition)


def dropped(labels: Tensor | None, share: float) -> Tensor | None:
    """The labels, a random `share` of them −1."""
    if labels is None:
        return None
    return labels.masked_fill(torch.rand(len(labels)) < share, -1)


def draw_times(n: int, how: str = "uniform", generator: torch.Generator | None = None) -> Tensor:
    """[n] times in [0, 1]. Raises ConfigError for a `how` that is none."""
    mean, std = parse_times(how)
    if std == 0:
        return torch.rand(n, generator=generator)
    return torch.sigmoid(mean + std * torch.randn(n, generator=generator))


def parse_times(how: str) -> tuple[float, float]:
    """Mean and deviation of the logits of t; a deviation of 0 stands for uniform times."""
    if how == "uniform":
        return 0.0, 0.0
    name, *numbers = how.split(":")
    try:
        mean, std = map(float, numbers or (0, 1))
        if name == "logit_normal" and math.isfinite(mean) and std > 0 and math.isfinite(std):
            return mean, std
    except ValueError:
        pass
    raise ConfigError(f"times = {how!r}", TIMES)
