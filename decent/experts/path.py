"""Gaussian paths from data to noise: x_t = α_t x₀ + σ_t ε, with t = 0 data and t = 1 noise.

    linear   α = 1 − t          σ = t            u = ε − x₀
    cosine   α = cos(πt/2)      σ = sin(πt/2)

The conditional velocity is u_t(x_t | x₀) = α' x₀ + σ' ε, and sampling integrates t from 1 to 0.
Times t [N], states x [N, *S]. Lipman et al., arXiv 2210.02747; Liu et al., arXiv 2209.03003.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from decent.errors import ConfigError


class Path(ABC):
    """α and σ as functions of the time t, their derivatives d/dt, and the time of a ratio σ/α."""

    name: str

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def alpha_rate(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma_rate(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def at_ratio(self, ratio: Tensor) -> Tensor:
        """The time at which σ/α is `ratio`, from 0 to infinity."""


class Linear(Path):
    name = "linear"

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -torch.ones_like(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def at_ratio(self, ratio: Tensor) -> Tensor:
        return 1 / (1 + 1 / ratio)  # ratio / (1 + ratio), finite at infinity


class Cosine(Path):
    name = "cosine"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin((1 - t) * (math.pi / 2))  # exactly 0 at t = 1, where cos would round

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(t * (math.pi / 2))

    def alpha_rate(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_rate(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.alpha(t)

    def at_ratio(self, ratio: Tensor) -> Tensor:
        return torch.atan(ratio) * (2 / math.pi)


LINEAR: Path = Linear()
COSINE: Path = Cosine()
PATHS = {each.name: each for each in (LINEAR, COSINE)}


def path(name: str) -> Path:
    """The path called `name`; raises ConfigError for an unknown one."""
    if name not in PATHS:
        raise ConfigError(f"path {name!r}", " or ".join(map(repr, PATHS)))
    return PATHS[name]


def spread(t: Tensor, x: Tensor) -> Tensor:
    """`t` [N] as [N, 1, …], of x's type, to multiply x [N, *S]."""
    return t.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))


def noised(path: Path, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """x_t = α_t x₀ + σ_t ε."""
    return spread(path.alpha(t), x0) * x0 + spread(path.sigma(t), x0) * noise


def velocity(path: Path, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """u_t(x_t | x₀) = α' x₀ + σ' ε."""
    return spread(path.alpha_rate(t), x0) * x0 + spread(path.sigma_rate(t), x0) * noise
