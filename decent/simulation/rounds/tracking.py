"""Gradient tracking (DIGing): each worker steps along an estimate q_i of the mean gradient.

    x ← W x − η q
    q ← W q + ∇F(x⁺) − ∇F(x)          q⁰ = ∇F(x⁰), so that mean_i q_i = mean_i ∇f_i(x_i), always

Converges linearly to the optimum itself at a constant step η. Source: Nedić, Olshevsky & Shi,
"Achieving Geometric Convergence for Distributed Optimization over Time-Varying Graphs" (SIAM J.
Optim. 2017), Algorithm 1.

The step of its theory falls with n and κ^1.5. Where W stays the same and none is given, η = u/(2L)
with u the positive root of

    (1 + κ) u² + (3 − σ) u = (1 − σ)²          κ = L/μ,  σ = ‖W − 11ᵀ/n‖₂

At η = u/L the matrix that bounds one round's ‖x − x̄‖, ‖q − q̄‖ and √n·‖x̄ − x*‖ by those before,

    [σ  η  0;   2L + ηL²  σ + ηL  ηL²;   ηL  0  1 − ημ],

has the eigenvalue 1, below it all are smaller. (The bound is as in Qu & Li, "Harnessing Smoothness
to Accelerate Distributed Optimization", 2018.) It is safe, not fast: tuned steps are far larger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import numpy as np

from decent.errors import ConfigError
from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class GradientTracking:
    """Two vectors over each edge in use, each round: x and q."""

    step: float | None = None  # η

    name: ClassVar[str] = "tracking"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        eta = _safe_step(problem) if self.step is None else self.step
        x, messages = problem.start, 0.0
        yield Round(x, 0, 0)
        gradient = problem.gradient(x)
        q = gradient
        for k in count():
            x, mixed = problem.mix(k, x) - eta * q, problem.mix(k, q)
            messages += 2 * problem.mixing.exchanges(k)
            yield Round(x, k + 1, messages)
            before, gradient = gradient, problem.gradient(x)
            q = mixed + gradient - before


def _safe_step(problem: Problem) -> float:
    mu, L = problem.constants(GradientTracking.name)
    weights = problem.mixing.weights(0)
    sigma = float(np.linalg.norm(weights - 1 / problem.n, 2))
    if sigma >= 1 - 1e-9 or not np.array_equal(weights, problem.mixing.weights(1)):
        raise ConfigError(
            "gradient tracking without a step, over a mixing that changes from round to round",
            "a step, as none is known to be safe",
            "give step, of the order of 0.1/L",
        )
    a, b, c = 1 + L / mu, 3 - sigma, (1 - sigma) ** 2
    return (math.sqrt(b * b + 4 * a * c) - b) / (2 * a) / (2 * L)
