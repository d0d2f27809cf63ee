"""A diffusion transformer for images and latents [C, H, W], as expert or router.

The image is cut into patches of p × p, each a token with a sine-cosine position in two dimensions;
L blocks of attention and MLP, modulated by time and class ("adaLN-zero", Peebles & Xie, arXiv
2212.09748, §3.2):

    (s₁, a₁, g₁, s₂, a₂, g₂) = W_l·silu(W_t·features(t) + e_c)
    h ← h + g₁ ⊙ attention(a₁ ⊕ norm(h)),   h ← h + g₂ ⊙ MLP(a₂ ⊕ norm(h)),   a ⊕ x = x·(1 + a) + s

A router has one token more, learned, whose last state gives the logits. W_l and the last layer
start from 0, with the linear skip of `parts`: an untrained expert is the best linear one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decent.errors import ModelError
from decent.experts.networks.parts import Conditioning, scalings, zeroed


class DiT(nn.Module):
    """(x [N, C, H, W], t [N], condition [N] or None) → velocity [N, C, H, W] or logits
    [N, outputs]."""

    places: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        outputs: int | None = None,
        patch: int = 4,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        _check(shape, patch, width, depth, heads)
        channels, height, across = shape
        self.patch, self.outputs = patch, outputs
        self.enter = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer(
            "places", positions(height // patch, across // patch, width), persistent=False
        )
        self.token = None if outputs is None else nn.Parameter(0.02 * torch.randn(width))
        self.conditioning = Conditioning(width, classes)
        self.blocks = nn.ModuleList(Block(width, heads, expansion) for _ in range(depth))
        self.last = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, outputs or channels * patch**2))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        skip, inverse = scalings(t, x)
        known = self.conditioning(t, condition)
        h = self.enter(x * inverse).flatten(2).mT + self.places
        if self.token is not None:
            h = torch.cat([self.token.expand(len(h), 1, -1), h], dim=1)
        for block in self.blocks:
            h = block(h, known)
        if self.token is not None:
            h = h[:, :1]
        shift, scale = self.last(known)[:, None].chunk(2, dim=-1)
        out: Tensor = self.leave(_modulated(h, shift, scale))
        return out[:, 0] if self.token is not None else skip * x + inverse * self._image(out, x)

    def _image(self, tokens: Tensor, like: Tensor) -> Tensor:
        """Tokens [N, H/p · W/p, C·p²] → [N, C, H, W]."""
        whole: Tensor = F.fold(tokens.mT, like.shape[2:], self.patch, stride=self.patch)
        return whole


class Block(nn.Module):
    """Attention and MLP over tokens [N, T, width], modulated by what is known [N, width]."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.attend, self.gather = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)

    def forward(self, h: Tensor, known: Tensor) -> Tensor:
        parts = self.modulation(known)[:, None].chunk(6, dim=-1)
        h = h + parts[2] * self._attention(_modulated(h, *parts[:2]))
        widened = F.gelu(self.widen(_modulated(h, *parts[3:5])))
        answer: Tensor = h + parts[5] * self.narrow(widened)
        return answer

    def _attention(self, h: Tensor) -> Tensor:
        split = self.attend(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*split.unbind(0))
        gathered: Tensor = self.gather(mixed.transpose(1, 2).flatten(2))
        return gathered


def positions(rows: int, columns: int, width: int) -> Tensor:
    """[rows · columns, width]: sines and cosines of the row in one half, of the column in the
    other, with wavelengths from 2π to 10,000·2π patches."""
    slow = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [torch.outer(each.flatten().float(), slow) for each in (y, x)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)


def _modulated(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:]) * (1 + scale) + shift


def _check(shape: tuple[int, ...], patch: int, width: int, depth: int, heads: int) -> None:
    if len(shape) != 3 or patch < 1 or shape[1] % patch or shape[2] % patch:
        raise ModelError(
            f"network 'dit' with patch = {patch} for samples {list(shape)}",
            "[C, H, W], H and W multiples of the patch",
            "choose another patch, or the network 'mlp' for vectors",
        )
    if min(width, depth, heads) < 1 or width % 4 or width % heads:
        raise ModelError(
            f"network 'dit' with width = {width}, depth = {depth}, heads = {heads}",
            "1 or more of each, the width a multiple of 4 and of the heads",
        )
