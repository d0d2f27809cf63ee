"""Optimizers of many workers at once: the rules of torch.optim over rows [k, d], a state for each.

    SGD      b ← μ b + g,  Δ = −lr (g + μ b if nesterov else b)         (torch.optim.SGD)
    Adam(W)  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,
             Δ = −lr · m/(1 − β₁ᵗ) / (√(v/(1 − β₂ᵗ)) + ε)               (Kingma & Ba; torch.optim)

Weight decay adds λx to g, or −lr·λ·x to Δ where it is decoupled (AdamW). `local_optimizer` reads
the constants off an optimizer of torch, so a task needs no second description of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from decent.errors import ConfigError

_UNSUPPORTED = ("amsgrad", "maximize", "dampening")


class LocalOptimizer(ABC):
    """Turns gradients of some workers into displacements of their parameters."""

    @abstractmethod
    def displacement(self, gradients: Tensor, workers: Tensor, points: Tensor) -> Tensor:
        """Δ [k, d] for `gradients` [k, d], each of another one of `workers` [k] at `points` [k, d].
        May overwrite the gradients."""

    def step(self, points: Tensor, gradients: Tensor, workers: Tensor) -> None:
        """Move `points` by their displacement, in place."""
        points += self.displacement(gradients, workers, points)

    def state(self) -> dict[str, Tensor]:
        """What to keep to go on later; tensors are live."""
        return {}


class SGD(LocalOptimizer):
    """With momentum it keeps one vector per worker, made at the first step."""

    def __init__(
        self, lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        self.lr, self.momentum, self.nesterov = lr, momentum, nesterov
        self.weight_decay = weight_decay
        self._velocity: Tensor | None = None

    def allocate(self, workers: int, like: Tensor) -> None:
        if self.momentum:
            self._velocity = like.new_zeros(workers, like.shape[1])

    def displacement(self, gradients: Tensor, workers: Tensor, points: Tensor) -> Tensor:
        if self.weight_decay:
            gradients.add_(points, alpha=self.weight_decay)
        if self._velocity is None:
            return gradients.mul_(-self.lr)
        velocity = self._velocity.index_select(0, workers).mul_(self.momentum).add_(gradients)
        self._velocity.index_copy_(0, workers, velocity)
        if self.nesterov:
            return gradients.add_(velocity, alpha=self.momentum).mul_(-self.lr)
        return velocity.mul_(-self.lr)

    def step(self, points: Tensor, gradients: Tensor, workers: Tensor) -> None:
        if self._velocity is None and not self.weight_decay:
            points.add_(gradients, alpha=-self.lr)
        else:
            super().step(points, gradients, workers)

    def state(self) -> dict[str, Tensor]:
        return {} if self._velocity is None else {"velocity": self._velocity}


class Adam(LocalOptimizer):
    """Adam, and AdamW where weight decay is `decoupled`."""

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
    ) -> None:
        self.lr, self.betas, self.eps = lr, betas, eps
        self.weight_decay, self.decoupled = weight_decay, decoupled

    def allocate(self, workers: int, like: Tensor) -> None:
        self._m, self._v = like.new_zeros(2, workers, like.shape[1])
        self._steps = torch.zeros(workers, dtype=torch.int64, device=like.device)

    def displacement(self, gradients: Tensor, workers: Tensor, points: Tensor) -> Tensor:
        decay = self.weight_decay
        if decay and not self.decoupled:
            gradients.add_(points, alpha=decay)
        (b1, b2), steps = self.betas, self._steps.index_select(0, workers) + 1
        m = self._m.index_select(0, workers).lerp_(gradients, 1 - b1)
        v = self._v.index_select(0, workers).mul_(b2).addcmul_(gradients, gradients, value=1 - b2)
        for whole, rows in ((self._m, m), (self._v, v), (self._steps, steps)):
            whole.index_copy_(0, workers, rows)
        each = steps.to(torch.float64)[:, None]
        scale: Tensor = -self.lr / (1 - b1**each)
        spread: Tensor = 1 - b2**each
        moved: Tensor = m.div_(v.div_(spread.to(v.dtype)).sqrt_().add_(self.eps))
        moved = moved.mul_(scale.to(m.dtype))
        return moved.add_(points, alpha=-self.lr * decay) if decay and self.decoupled else moved

    def state(self) -> dict[str, Tensor]:
        return {"m": self._m, "v": self._v, "steps": self._steps}


def local_optimizer(optimizer: torch.optim.Optimizer, workers: int, like: Tensor) -> LocalOptimizer:
    """The optimizer of each of `workers` whose parameters are rows as those of `like` [·, d].

    Raises ConfigError for one that is neither SGD, Adam nor AdamW, or has several groups.
    """
    kind, name = type(optimizer), type(optimizer).__name__
    groups = optimizer.param_groups
    if len(groups) != 1:
        raise _cannot(f"an optimizer with {len(groups)} parameter groups")
    options: dict[str, Any] = groups[0]
    if odd := [key for key in _UNSUPPORTED if options.get(key)]:
        raise _cannot(f"{name} with {odd[0]} = {options[odd[0]]}")
    found: SGD | Adam
    if kind is torch.optim.SGD:
        keys = ("lr", "momentum", "nesterov", "weight_decay")
        found = SGD(**{key: options[key] for key in keys})
    elif kind in (torch.optim.Adam, torch.optim.AdamW):
        keys = ("lr", "betas", "eps", "weight_decay")
        decoupled = kind is torch.optim.AdamW or bool(options.get("decoupled_weight_decay"))
        found = Adam(**{key: options[key] for key in keys}, decoupled=decoupled)
    else:
        raise _cannot(f"optimizer {name}")
    found.allocate(workers, like)
    return found


def _cannot(given: str) -> ConfigError:
    return ConfigError(
        given,
        "SGD, Adam or AdamW over one group of parameters, where all workers step at once",
        'choose one of these, or simulation.fidelity = "network", which takes any',
    )
