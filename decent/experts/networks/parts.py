"""What the networks share: features of time, the condition's embedding, and a linear skip.

With data and noise of unit mean square, the best linear prediction of the velocity u = ε − x₀ from
x_t = (1 − t)·x₀ + t·ε is c·x_t, and what it leaves has the deviation 1/s:

    s² = (1 − t)² + t²,    c = (2t − 1)/s²,    u ≈ c·x_t + (1/s)·F(x_t/s, t, condition)

so that the network F has inputs and targets of unit mean square at every t. It is the
preconditioning of Karras et al. (arXiv 2206.00364, §5) with σ_data = 1, written for the velocity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES = 64  # of time
SLOWEST, FASTEST = 0.25, 64.0  # turns over t from 0 to 1


class Conditioning(nn.Module):
    """t [N] in [0, 1], and class labels int64 [N] where there are `classes` (−1, or no labels at
    all: no condition) → [N, width]."""

    turns: Tensor

    def __init__(self, width: int, classes: int = 0) -> None:
        super().__init__()
        turns = torch.logspace(math.log10(SLOWEST), math.log10(FASTEST), FEATURES // 2)
        self.register_buffer("turns", 2 * math.pi * turns, persistent=False)
        self.time = nn.Linear(FEATURES, width)
        self.classes = classes
        self.label = nn.Embedding(classes + 1, width) if classes else None

    def forward(self, t: Tensor, condition: Tensor | None) -> Tensor:
        angles = torch.outer(t, self.turns)
        known: Tensor = self.time(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.label is not None:
            known = known + self.label(self._labels(t, condition))
        return F.silu(known)

    def _labels(self, t: Tensor, condition: Tensor | None) -> Tensor:
        """−1 and none become the last row of the embedding."""
        if condition is None:
            return torch.full(t.shape, self.classes, dtype=torch.int64, device=t.device)
        return condition.masked_fill(condition < 0, self.classes)


def scalings(t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """c and 1/s at t [N], shaped to multiply x [N, …]."""
    t = t.view(-1, *[1] * (x.dim() - 1))
    inverse = torch.rsqrt((1 - t) ** 2 + t**2)
    return (2 * t - 1) * inverse**2, inverse


def zeroed(linear: nn.Linear) -> nn.Linear:
    """The layer, yielding 0 before training."""
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
