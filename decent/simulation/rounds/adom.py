"""ADOM+: accelerated descent on the primal and accelerated gossip with error feedback, coupled.

With W the gossip matrix, F(x) = Σ_i f_i(x_i) and g = ∇F(x_g) − ν x_g, one round is

    x_g = τ₁ x + (1 − τ₁) x_f      y_g = σ₁ y + (1 − σ₁) y_f      z_g = σ₁ z + (1 − σ₁) z_f
    x⁺ = x + ηα (x_g − x⁺) − η (g − y⁺)               x_f⁺ = x_g + τ₂ (x⁺ − x)
    y⁺ = y + θβ (g − y⁺) − θ ((y_g + z_g)/ν + x⁺)     y_f⁺ = y_g + σ₂ (y⁺ − y)
    z⁺ = z + γδ (z_g − z) − W u                       z_f⁺ = z_g − ζ W (y_g + z_g)
    m⁺ = u − W u                                      u = (γ/ν)(y_g + z_g) + m

from x_f = x = x⁰ and zeros, with

    τ₂ = √(μ/L),  1/τ₁ = 1/τ₂ + ½,  σ₂ = τ₂/(16χ),  1/σ₁ = 1/σ₂ + ½,  ζ = ½,  ν = α = μ/2
    η = 1/(L τ₂),  β = 1/(2L),  δ = 1/(17L),  θ = ν/(4σ₂),  γ = ν/(14 σ₂ χ²)

χ = λ_max/λ₂, with W = Laplacian/λ_max. With `multi_consensus` W becomes 1 − (1 − W)^T, T = ⌈χ ln 2⌉
exchanges over every edge one after the other, and χ becomes 2 at most. ‖x − x*‖² falls at least as
(1 − √(μ/L)/(32χ))^k. Source: Kovalev et al., "Lower Bounds and Optimal Algorithms for Smooth and
Strongly Convex Decentralized Optimization Over Time-Varying Networks" (NeurIPS 2021).
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
class ADOM:
    """One gradient and 2T vectors over every edge, each round: W is applied to y_g + z_g and to u,
    and T = 1 without `multi_consensus`."""

    multi_consensus: bool = False

    name: ClassVar[str] = "adom"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        mu, L = problem.constants(self.name)
        W, chi, T = self._gossip(problem)
        tau_2 = math.sqrt(mu / L)
        sigma_2 = tau_2 / (16 * chi)
        tau_1, sigma_1 = 1 / (1 / tau_2 + 0.5), 1 / (1 / sigma_2 + 0.5)
        alpha = nu = mu / 2
        eta, beta, delta, zeta = 1 / (L * tau_2), 1 / (2 * L), 1 / (17 * L), 0.5
        theta, gamma = nu / (4 * sigma_2), nu / (14 * sigma_2 * chi**2)

        x = x_f = problem.start
        y = y_f = z = z_f = m = torch.zeros_like(x)
        yield Round(x, 0, 0)
        for k in count(1):
            x_g = torch.lerp(x_f, x, tau_1)
            y_g, z_g = torch.lerp(y_f, y, sigma_1), torch.lerp(z_f, z, sigma_1)
            both = y_g + z_g
            g = problem.gradient(x_g) - nu * x_g
            # Both updates hold x⁺ and y⁺: x⁺ = free + a·y⁺, put into the other.
            a = eta / (1 + eta * alpha)
            free = (x + eta * (alpha * x_g - g)) / (1 + eta * alpha)
            known = y + theta * (beta * g - both / nu - free)
            y_new = known / (1 + theta * beta + theta * a)
            x_new = free + a * y_new
            u = gamma / nu * both + m
            mixed = W @ u
            z, m, z_f = z + gamma * delta * (z_g - z) - mixed, u - mixed, z_g - zeta * (W @ both)
            x, x_f = x_new, x_g + tau_2 * (x_new - x)
            y, y_f = y_new, y_g + sigma_2 * (y_new - y)
            yield Round(x, k, k * 2 * T * len(problem.topology.edges))

    def _gossip(self, problem: Problem) -> tuple[Tensor, float, int]:
        """W, its χ, and how many times an edge is used to apply it."""
        matrix, gap = problem.gossip_matrix()
        if not self.multi_consensus:
            return matrix, 1 / gap, 1
        T = math.ceil(math.log(2) / gap)
        identity = torch.eye(problem.n).to(matrix)
        return identity - torch.linalg.matrix_power(identity - matrix, T), min(2.0, 1 / gap), T
