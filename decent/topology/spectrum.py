"""What a graph's spectrum says about gossip on it: the constants χ₁ and χ₂.

With Λ = Σ_edges rate_e (e_i − e_j)(e_i − e_j)ᵀ, the n × n Laplacian weighted by the exchanges per
unit of time (one unit is the expected duration of one local gradient step):

    χ₁ = 1/λ₂(Λ)                                     inverse of the slowest mode's rate
    χ₂ = max over edges of ½ (e_i − e_j)ᵀ Λ⁺ (e_i − e_j)   half the largest effective resistance

Both are times, scale as 1/c when all rates scale by c, and obey (n − 1)/Tr Λ ≤ χ₂ ≤ χ₁. Plain
gossip forgets a disagreement in a time of order χ₁, accelerated gossip in √(χ₁χ₂).

Source: Nabli and Oyallon, "DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization",
ICML 2023.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def spectral_gap(laplacian: Matrix) -> float:
    """λ₂(Λ) per unit of time: the rate at which the slowest disagreement decays. It is 0 where
    the graph is disconnected to rounding, and infinite for one worker, who agrees already."""
    if len(laplacian) == 1:
        return math.inf
    eigenvalues = np.linalg.eigvalsh(laplacian)
    rounding = len(laplacian) * np.finfo(np.float64).eps * eigenvalues[-1]
    return float(eigenvalues[1]) if eigenvalues[1] > rounding else 0.0


def chi_1(laplacian: Matrix) -> float:
    """χ₁ = 1/λ₂(Λ) in units of time (DADAO, ICML 2023); infinite if disconnected."""
    gap = spectral_gap(laplacian)
    return 1.0 / gap if gap > 0 else math.inf


def chi_2(laplacian: Matrix, edges: Sequence[tuple[int, int]]) -> float:
    """χ₂ in units of time: half the largest effective resistance of the `edges` (DADAO, ICML
    2023), which are those of rate > 0 of a connected graph."""
    resistances = effective_resistances(laplacian, edges)
    return float(resistances.max()) / 2 if len(resistances) else 0.0


def effective_resistances(laplacian: Matrix, edges: Sequence[tuple[int, int]]) -> Matrix:
    """(e_i − e_j)ᵀ Λ⁺ (e_i − e_j) for each of the `edges` of a connected graph, shape [edges].

    Λ + s·11ᵀ/n is invertible and differs from Λ on the constant vector alone, which e_i − e_j
    does not see; s is Λ's mean eigenvalue, so that the inverse is no worse conditioned than Λ⁺.
    """
    if not edges:
        return np.zeros(0)
    n = len(laplacian)
    inverse = np.linalg.inv(laplacian + np.trace(laplacian) / n**2)
    i, j = np.asarray(edges).T
    resistances: Matrix = inverse[i, i] + inverse[j, j] - inverse[i, j] - inverse[j, i]
    return resistances
