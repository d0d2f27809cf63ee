"""Flow matching: the loss of an expert, and the times it is taken at.

    L = E ‖v(x_t, t, c) − u_t(x_t | x₀)‖² / d,    x_t = α_t·x₀ + σ_t·ε,    u_t = α'_t·x₀ + σ'_t·ε

(Lipman et al., arXiv 2210.02747; on the linear path u = ε − x₀). Its minimiser is the marginal
flow, and for any v it differs from E‖v − u_t(x_t)‖²/d by a constant that depends on data and path
alone: held-out losses of one model and of an ensemble can be compared.

Times: uniform, or t = 1/(1 + e^−z), z ~ N(mean, std) (Esser et al., arXiv 2403.03206, §3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from decent.errors import ConfigError
from decent.experts.path import LINEAR, Path, noised, velocity

Model = Callable[[Tensor, Tensor, Tensor | None], Tensor]
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
    t [N]; without `reduce` of each row, [N]."""
    target = velocity(path, x0, noise, t)
    error = (model(noised(path, x0, noise, t), t, condition) - target).square()
    return error.mean() if reduce else error.flatten(1).mean(1)


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
