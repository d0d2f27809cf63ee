"""MSDA: Nesterov's accelerated descent on the dual, gossiping K times per step.

    θ_i = ∇f_i*(x_i)                  the primal points, which become equal
    y⁺  = x − η P_K(W) θ
    x⁺  = (1 + β) y⁺ − β y            y⁰ = x⁰ = 0

P_K(W) is K exchanges over every edge, weighted as Chebyshev's polynomial says. With W the graph's
Laplacian over its largest eigenvalue, γ its eigengap λ₂/λ_max, κ = L/μ, and
c = ((1 − √γ)/(1 + √γ))^K:

    K = ⌊1/√γ⌋,   η = μ (1 + c²)/(1 + c)²,   β = (√κ' − 1)/(√κ' + 1),   √κ' = √κ (1 + c)/(1 − c)

The dual's error falls as (1 − 1/√κ')^k, and √κ' ≤ 2√κ whatever the graph. Its start is where every
worker is at the minimum of its own f_i: the first gradient leads there. Source: Scaman et al.,
"Optimal Algorithms for Smooth and Strongly Convex Distributed Optimization in Networks" (ICML
2017), Algorithm 2. P_K is computed by Chebyshev's semi-iteration, which has no 1/0 where γ = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class MSDA:
    """One dual gradient and K vectors over every edge, each round."""

    name: ClassVar[str] = "msda"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        mu, L = problem.constants(self.name)
        dual = problem.dual_gradients(self.name)
        matrix, gap = problem.gossip_matrix()
        K = math.floor(1 / math.sqrt(gap))
        c = ((1 - math.sqrt(gap)) / (1 + math.sqrt(gap))) ** K
        root = math.sqrt(L / mu) * (1 + c) / (1 - c)
        eta, beta = mu * (1 + c**2) / (1 + c) ** 2, (root - 1) / (root + 1)
        yield Round(problem.start, 0, 0)
        x = y = torch.zeros_like(problem.start)
        for k in count():
            theta = dual(x, problem.workers)
            yield Round(theta, k + 1, k * K * len(problem.topology.edges))
            before, y = y, x - eta * chebyshev(matrix, gap, K, theta)
            x = (1 + beta) * y - beta * before


def chebyshev(matrix: Tensor, gap: float, K: int, points: Tensor) -> Tensor:
    """P_K(W) X = (I − T_K(M/ρ)/T_K(1/ρ)) X with M = I − 2W/(1 + γ) and ρ = (1 − γ)/(1 + γ), which
    is the largest |eigenvalue| of M off consensus."""
    rho, omega = (1 - gap) / (1 + gap), 2.0
    before, now = points, points - 2 / (1 + gap) * (matrix @ points)
    for _ in range(1, K):
        omega = 1 / (1 - rho**2 * omega / 4)
        contracted = now - 2 / (1 + gap) * (matrix @ now)
        before, now = now, before + omega * (contracted - before)
    return points - now
