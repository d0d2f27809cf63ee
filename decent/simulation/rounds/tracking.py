"""Gradient tracking (DIGing): each worker steps along an estimate q_i of the mean gradient.

    x ← W x − η q
    q ← W q + ∇F(x⁺) − ∇F(x)          q⁰ = ∇F(x⁰), so that mean_i q_i = mean_i ∇f_i(x_i), always

Converges linearly to the optimum itself at a constant step η. Source: Nedić, Olshevsky & Shi,
"Achieving Geometric Convergence for Distributed Optimization over Time-Varying Graphs" (SIAM J.
Optim. 2017), Algorithm 1.

The steps that its theory allows fall with n, κ and the graph's gap. For quadratic f_i and one
symmetric W more is true: it converges for all η < (1 + λ_min(W))²/(2L), whatever the graph. With z
an eigenvalue of the round and x its vector, ‖x‖ = 1, (z − W)² x + η (z − 1) H x = 0, so

    z² − (2a − ηh) z + b − ηh = 0          a = x*Wx,  b = x*W²x = ‖Wx‖²,  h = x*Hx ≤ L

and |z| < 1 follows from b ≤ 1, ‖x − Wx‖² > 0 and ‖x + Wx‖² > 2ηh; or x is the same everywhere and
z = 1, which q⁰ rules out, or z = 1 − ηh. Half of that bound is the step where none is given.
"""

from __future__ import annotations

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
    """Half of the largest that is safe for quadratics."""
    L = problem.constants(GradientTracking.name)[1]
    weights = problem.mixing.weights(0)
    if not (np.allclose(weights, weights.T) and np.allclose(weights, problem.mixing.weights(1))):
        raise ConfigError(
            "gradient tracking without a step, where W changes from round to round or has W ≠ Wᵀ",
            "a step, as none is known to be safe",
            "give step, 0.1/L to begin with",
        )
    return float((1 + np.linalg.eigvalsh(weights)[0]) ** 2) / (4 * L)
