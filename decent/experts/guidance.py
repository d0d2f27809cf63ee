"""Classifier-free guidance: u = u(∅) + s·[u(c) − u(∅)], the scale s.

Both halves go to the model in one call of 2N rows. Of an ensemble each half is combined first, with
the router's p(k | x, t, c) and p(k | x, t, ∅), and only then guided; guiding each expert and then
mixing with a router blind to the condition is a different field. Ho & Salimans, arXiv 2207.12598.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decent.experts.ensemble import Ensemble
from decent.experts.prediction import Model


class Guided(nn.Module):
    """`model` guided by `scale`: 0 ignores the condition, 1 is the model itself."""

    def __init__(self, model: Model, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity [N, *S]; labels of `condition` are −1 where there is none."""
        if condition is None or self.scale == 1:
            return self.model(x, t, condition)
        both = torch.cat([condition, torch.full_like(condition, -1)])
        pair = {"halves": True} if isinstance(self.model, Ensemble) else {}
        answer = self.model(torch.cat([x, x]), torch.cat([t, t]), both, **pair)
        conditional, free = answer.chunk(2)
        return free + self.scale * (conditional - free)
