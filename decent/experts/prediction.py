"""What a network predicts, brought to one velocity at the boundary.

A network of another path (α̃, σ̃) is asked where the signal-to-noise ratio is the same, at t̃ with
σ̃/α̃ = σ/α, and with the state in its own scale, x̃ = x·√(α̃² + σ̃²)/√(α² + σ²) (= x·α̃/α, without
the division). Its output o = a x₀ + b ε, with

    velocity  a = α̃'   b = σ̃'          data   a = 1     b = 0
    noise     a = 0    b = 1           v      a = −σ̃    b = α̃

and x̃ = α̃ x₀ + σ̃ ε give, with D = α̃ b − σ̃ a, x₀ = (b x̃ − σ̃ o)/D and ε = (α̃ o − a x̃)/D, and from
these u = α' x₀ + σ' ε. D vanishes only for noise at t = 1 and for data at t = 0, where nothing can
be known of the other; it is kept above `FLOOR` there. Experts of several kinds then mix exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import torch
from torch import Tensor, nn

from decent.experts import path as paths
from decent.experts.path import LINEAR, Path, spread

Model = Callable[..., Tensor]
"""(x [N, *S], t [N], condition or none) → velocity [N, *S], or logits [N, K] of a router"""

FLOOR = 0.01  # of |D|: at t = 1 an error of predicted noise reaches x₀ at most 100-fold


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a network predicts, on which path, and by what it wants its time multiplied."""

    kind: Literal["velocity", "noise", "data", "v"] = "velocity"
    path: Literal["linear", "cosine"] = "linear"
    time_scale: float = 1.0


class AsVelocity(nn.Module):
    """`module`, which predicts as `prediction` says, as a velocity of `path`."""

    def __init__(self, module: Model, prediction: Prediction, path: Path = LINEAR) -> None:
        super().__init__()
        self.module, self.prediction, self.path = module, prediction, path

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity [N, *S] at x [N, *S], t [N]."""
        kind, scale = self.prediction.kind, self.prediction.time_scale
        own = paths.path(self.prediction.path)
        if own is self.path and kind == "velocity" and scale == 1:
            return self.module(x, t, condition)
        own_t = t if own is self.path else own.at_ratio(self.path.sigma(t) / self.path.alpha(t))
        own_x = x * spread(_norm(own, own_t) / _norm(self.path, t), x)
        output = self.module(own_x, own_t * scale, condition)
        x0, noise = _ends(kind, own, own_x, own_t, output)
        return paths.velocity(self.path, x0, noise, t)


def _norm(path: Path, t: Tensor) -> Tensor:
    return torch.hypot(path.alpha(t), path.sigma(t))


def _ends(kind: str, path: Path, x: Tensor, t: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
    """x₀ and ε of a prediction `output` at x, t."""
    alpha, sigma = path.alpha(t), path.sigma(t)
    a, b = {
        "velocity": (path.alpha_rate(t), path.sigma_rate(t)),
        "noise": (torch.zeros_like(t), torch.ones_like(t)),
        "data": (torch.ones_like(t), torch.zeros_like(t)),
        "v": (-sigma, alpha),
    }[kind]
    sign = -1 if kind == "data" else 1
    d = spread(sign * (sign * (alpha * b - sigma * a)).clamp(min=FLOOR), x)
    a, b, alpha, sigma = (spread(each, x) for each in (a, b, alpha, sigma))
    x0 = output if kind == "data" else (b * x - sigma * output) / d
    noise = output if kind == "noise" else (alpha * output - a * x) / d
    return x0, noise
