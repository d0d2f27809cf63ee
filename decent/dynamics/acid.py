"""A²CiD²: gossip with a continuous momentum, which speeds up consensus on sparse graphs.

    drift       x' = η (x̃ − x)           x̃' = η (x − x̃)
    gradient    x ← x − γ ∇f_i(x)        x̃ ← x̃ − γ ∇f_i(x)
    exchange    x ← x − ½ (x_i − x_j)    x̃ ← x̃ − α̃ (x_i − x_j)    (opposite sign at j)

    η = 1/(2√(χ₁χ₂)) per unit of time,   α̃ = ½ √(χ₁/χ₂),   γ = `step`

Drift keeps x + x̃ as it is, and an exchange keeps the mean of each slot, hence the mean over workers
moves by gradients alone. A worker alone has η = 0, α̃ = ½: plain descent. Where exchanges are
slower than planned, η must follow the rates achieved, else the momentum overshoots and diverges; α̃
is a ratio of χ's and stays. Source: Nabli, Belilovsky & Oyallon, "A²CiD²: Accelerating Asynchronous
Communication in Decentralized Deep Learning" (NeurIPS 2023), the dynamics with momentum of §3 and
Algorithm 1; unlike its published code, drift comes before an exchange, never after.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from decent.dynamics.protocol import check_chi, check_positive
from decent.dynamics.system import State, System


@dataclass(frozen=True)
class Acid:
    """Slots x, x̃. In relative coordinates w = x̃ − x: drift is w ← e^(−2ηΔt)·w, with x taking up
    half of what w loses, a gradient leaves w as it is, and an exchange adds −(α̃ − ½)·(x_i − x_j)
    to it."""

    step: float = 1.0  # γ
    safety: float = 1.0  # η designed for rates so many times lower: what delays ask for

    name: ClassVar[str] = "a2cid2"

    def __post_init__(self) -> None:
        check_positive("step", self.step)
        check_positive("safety", self.safety)

    def system(self, chi_1: float, chi_2: float) -> System:
        check_chi(chi_1, chi_2)
        # Where χ₁ = χ₂ (alone, two workers, a complete graph) x̃ stays x: nothing to gain.
        plain = math.isclose(chi_1, chi_2, rel_tol=1e-9)
        eta = 0.0 if plain else 0.5 / (self.safety * math.sqrt(chi_1) * math.sqrt(chi_2))
        alpha_tilde = 0.5 if plain else 0.5 * math.sqrt(chi_1 / chi_2)
        return System(
            slots=("x", "x̃"),
            flow=eta * np.array([[-1.0, 1.0], [1.0, -1.0]]),
            probe=np.array([1.0, 0.0]),
            residual=np.zeros(2),
            kick=np.array([-self.step, -self.step]),
            message=np.array([1.0, 0.0]),
            mix=np.array([0.5, alpha_tilde]),
        )

    def initial(self, x: State) -> State:
        return np.stack([x, x])
