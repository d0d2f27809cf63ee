"""DADAO: decoupled accelerated decentralized asynchronous optimization, for Σ_i f_i of convex f_i.

Each f_i is μ-strongly convex and L-smooth; ν = μ/2; six slots, in the order of the equations.

    drift       x' = η (x̃ − x)                 x̃' = η̃ (x − x̃)
                y' = α (ỹ − y)                 ỹ' = −θ (y + z + ν x̃)
                z' = α (z̃ − z)                 z̃' = α̃ (z − z̃)
    gradient    g = ∇f_i(x) − ν x − ỹ          at rate 1 per worker
                x ← x − γ g     x̃ ← x̃ − γ̃ g    ỹ ← ỹ + (δ + δ̃) g
    exchange    d = (y_i + z_i) − (y_j + z_j)  at the rate of the edge
                z ← z − β d     z̃ ← z̃ − β̃ d    (opposite sign at j)

Gradients and exchanges touch different slots and commute; drift couples them. When all workers
have drifted to a common time, Σ_i z_i = Σ_i z̃_i = 0. At rest x_i = x*, y_i = ∇f_i(x*) − ν x* and
z_i = ȳ − y_i, tildes the same. Per unit of time: η, η̃, α, α̃, θ, the constants of drift.

Source: Nabli & Oyallon, "DADAO" (ICML 2023), eq. 3 and Algorithm 2, A from eq. 90: "published".
The general form is Lemma 12 of JMLR 26(207), 2025, with α = δ, which its proof needs (half of that
is printed), and with max(χ₁χ₂, ½) for χ₁χ₂, as more exchanges than the proof counts on break the
printed form. At χ₁χ₂ = ½ both agree, and E|x − x*|² falls at least as e^(−t·√(μ/L)/(8√2)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from decent.dynamics.protocol import check_chi, check_positive
from decent.dynamics.system import State, System
from decent.errors import DynamicsError


@dataclass(frozen=True)
class Dadao:
    """Slots x, x̃, y, ỹ, z, z̃. "general" slows down in proportion to √(χ₁χ₂) where exchanges are
    rare; "published" needs χ₁χ₂ ≤ ½, and diverges above, on some graphs not far above."""

    mu: float | None = None  # μ, strong convexity of every f_i; none: to be asked of the task
    L: float | None = None  # smoothness of every f_i
    parameters: Literal["general", "published"] = "general"
    safety: float = 1.0  # designed for rates so many times lower: what delays ask for

    name: ClassVar[str] = "dadao"

    @property
    def needs_curvature(self) -> bool:
        return self.mu is None or self.L is None

    def __post_init__(self) -> None:
        check_positive("safety", self.safety)
        for name in ("mu", "L"):
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))
        if self.mu is not None and self.L is not None and self.mu > self.L:
            raise DynamicsError(f"mu = {self.mu!r} above L = {self.L!r}", "mu ≤ L")
        if self.parameters not in ("general", "published"):
            raise DynamicsError(f"parameters = {self.parameters!r}", "'general' or 'published'")

    def system(self, chi_1: float, chi_2: float) -> System:
        check_chi(chi_1, chi_2)
        if self.mu is None or self.L is None:
            raise DynamicsError(
                "dadao without mu and L",
                "how curved every f_i is: at least mu, at most L",
                "set dynamics.mu and dynamics.L; the tasks ridge and logistic know theirs",
            )
        chi_1, chi_2 = self.safety * chi_1, self.safety * chi_2
        nu, L = self.mu / 2, self.L
        slack = self._slack(chi_1 * chi_2)
        slow, fast = math.sqrt(nu / (slack * L)), math.sqrt(L / (slack * nu))
        eta = alpha_tilde = slow / 8
        alpha = delta = slow / 4
        theta = fast / 2
        eta_tilde = math.sqrt(nu / L) / 8
        beta, beta_tilde = 0.5, 2 * chi_1 * fast
        gamma, gamma_tilde = 1 / (4 * L), 1 / (4 * math.sqrt(slack * nu * L))
        return System(
            slots=("x", "x̃", "y", "ỹ", "z", "z̃"),
            flow=np.array(
                [
                    [-eta, eta, 0, 0, 0, 0],
                    [eta_tilde, -eta_tilde, 0, 0, 0, 0],
                    [0, 0, -alpha, alpha, 0, 0],
                    [0, -theta * nu, -theta, 0, -theta, 0],
                    [0, 0, 0, 0, -alpha, alpha],
                    [0, 0, 0, 0, alpha_tilde, -alpha_tilde],
                ]
            ),
            probe=np.array([1.0, 0, 0, 0, 0, 0]),
            residual=np.array([-nu, 0, 0, -1, 0, 0]),
            kick=np.array([-gamma, -gamma_tilde, 0, delta + 1, 0, 0]),
            message=np.array([0, 0, 1.0, 0, 1, 0]),
            mix=np.array([0, 0, 0, 0, beta, beta_tilde]),
        )

    def initial(self, x: State) -> State:
        state = np.zeros((6, *x.shape), x.dtype)
        state[:2] = x
        return state

    def _slack(self, product: float) -> float:
        """2·max(χ₁χ₂, ½): 1 where exchanges are as frequent as published, more where rarer."""
        if self.parameters == "published" and product > 0.5 * (1 + 1e-9):
            raise DynamicsError(
                f"χ₁χ₂ = {product:.6g} with parameters = 'published'",
                "χ₁χ₂ ≤ ½",
                f"use parameters = 'general', or raise all rates by {math.sqrt(2 * product):.3g}",
            )
        return 1.0 if self.parameters == "published" else max(2 * product, 1.0)
