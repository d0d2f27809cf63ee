"""Exact log-likelihood through the flow's divergence.

Along dx/dt = u(x, t) the density changes by d log p_t(x_t)/dt = −∇·u, so that from the data's end,
with x_1 standard normal,

    log p_0(x_0) = log N(x_1; 0, 1) + ∫₀¹ ∇·u(x_t, t) dt

x and the integral are carried together by Heun's method. The divergence is exact (a derivative for
each dimension) or Hutchinson's estimate vᵀ ∂u/∂x v with random signs v, kept along a trajectory and
unbiased for the integral. Grathwohl et al., arXiv 1810.01367; Song et al., arXiv 2011.13456.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from decent.errors import ConfigError, ModelError
from decent.experts.draw import Draw
from decent.experts.prediction import Model
from decent.experts.solvers import along, heun


def log_likelihood(
    model: Model,
    x: Tensor,
    condition: Tensor | None = None,
    steps: int = 100,
    divergence: Literal["exact", "hutchinson"] = "exact",
    seed: int = 0,
    start: float = 1e-3,
) -> Tensor:
    """log p(x) [N] in nats, for x [N, *S] taken as states at t = `start`: the flow of a data set is
    not smooth at t = 0. Raises ConfigError for impossible numbers, ModelError for a model without
    derivatives, such as a remote one."""
    if steps < 1 or not 0 <= start < 1 or divergence not in ("exact", "hutchinson"):
        raise ConfigError(
            f"steps = {steps}, start = {start}, divergence = {divergence!r}",
            "steps ≥ 1, 0 ≤ start < 1, exact or hutchinson",
        )
    dims = x[0].numel()
    signs = _signs(x, seed) if divergence == "hutchinson" else None

    def rates(state: Tensor, t: Tensor) -> Tensor:
        u, spreading = _with_divergence(
            model, state[:, :dims].reshape(x.shape), t, condition, signs
        )
        return torch.cat([u.flatten(1), spreading[:, None]], 1)

    times = [start + (1 - start) * i / steps for i in range(steps + 1)]
    state = torch.cat([x.flatten(1), torch.zeros_like(x.flatten(1)[:, :1])], 1)
    state = along(times, heun, rates, state)
    normal = -0.5 * (state[:, :dims].square() + math.log(2 * math.pi)).sum(1)
    return normal + state[:, dims]


def bits_per_dimension(log_likelihood: Tensor, dims: int, width: float = 1.0) -> Tensor:
    """Bits for each of `dims` values that stand `width` apart: 2/255 for bytes in [−1, 1]."""
    return -log_likelihood / (dims * math.log(2)) - math.log2(width)


def _with_divergence(
    model: Model, x: Tensor, t: Tensor, condition: Tensor | None, signs: Tensor | None
) -> tuple[Tensor, Tensor]:
    """u [N, *S] and ∇·u [N]. Rows don't depend on each other, so one derivative serves them all."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        u = model(x, t, condition)
        if not u.requires_grad:
            raise ModelError("a model without derivatives", "one that runs here, under autograd")
        if signs is not None:
            (along,) = torch.autograd.grad((u * signs).sum(), x)
            return u.detach(), (along * signs).flatten(1).sum(1)
        spreading = torch.zeros_like(u.flatten(1)[:, 0])
        for i, column in enumerate(u.flatten(1).unbind(1)):
            (row,) = torch.autograd.grad(column.sum(), x, retain_graph=True)
            spreading = spreading + row.flatten(1)[:, i]
    return u.detach(), spreading.detach()


def _signs(x: Tensor, seed: int) -> Tensor:
    return Draw.of(seed, range(len(x))).normal(x.shape[1:]).sign().to(x)
