"""A residual MLP for vectors: flow experts on latents, and routers of the same family.

    h = W_in·(x_t/s);   (shift, gate)_l = W·silu(W_t·features(t) + e_c)
    h ← h + gate_l ⊙ W₂·silu(W₁·(norm(h) + shift_l)),  l = 1 … depth
    velocity = c·x_t + (1/s)·W_out·norm(h),            or logits = W_out·norm(h)

c, s as in `parts`; the modulation and W_out start from 0 ("adaLN-zero", Peebles & Xie, arXiv
2212.09748), so an untrained expert is the best linear one for white data. At 64 dimensions, width
64 and depth 2, it takes 61,440 multiply-adds; a router of width 48 with 8 logits takes 34,176.
Anything that is not a vector is flattened.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional as F

from decent.errors import ModelError
from decent.experts.networks.parts import Conditioning, scalings, zeroed


class MLP(nn.Module):
    """(x [N, *shape], t [N], condition [N] or None) → velocity [N, *shape] or logits
    [N, outputs]."""

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        outputs: int | None = None,
        width: int = 64,
        depth: int = 2,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        if min(width, depth, expansion) < 1:
            given = f"width = {width}, depth = {depth}, expansion = {expansion}"
            raise ModelError(f"network 'mlp' with {given}", "1 or more of each")
        size = math.prod(shape)
        self.width, self.outputs = width, outputs
        self.conditioning = Conditioning(width, classes)
        self.modulation = zeroed(nn.Linear(width, 2 * depth * width))
        self.enter = nn.Linear(size, width)
        self.widen = nn.ModuleList(nn.Linear(width, expansion * width) for _ in range(depth))
        self.narrow = nn.ModuleList(nn.Linear(expansion * width, width) for _ in range(depth))
        self.leave = zeroed(nn.Linear(width, size if outputs is None else outputs))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        flat = x.flatten(1)
        skip, inverse = scalings(t, flat)
        known = self.modulation(self.conditioning(t, condition))
        shifts_and_gates = known.chunk(2 * len(self.widen), dim=1)
        h = self.enter(flat * inverse)
        for i, (widen, narrow) in enumerate(zip(self.widen, self.narrow, strict=True)):
            shift, gate = shifts_and_gates[2 * i : 2 * i + 2]
            h = h + gate * narrow(F.silu(widen(self._norm(h) + shift)))
        out: Tensor = self.leave(self._norm(h))
        return out if self.outputs is not None else (skip * flat + inverse * out).view_as(x)

    def _norm(self, h: Tensor) -> Tensor:
        return F.layer_norm(h, (self.width,))
