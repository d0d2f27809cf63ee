"""Hypothesis strategies for methods, their constants, and states."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decent.dynamics import Acid, Array, Dadao, Dynamics, Gossip, System


def numbers(bound: float) -> st.SearchStrategy[float]:
    return st.floats(-bound, bound, allow_subnormal=False)


def states(system: System, workers: int, dim: int = 3) -> st.SearchStrategy[Array]:
    """[workers, S, dim]"""
    return arrays(np.float64, (workers, len(system.slots), dim), elements=numbers(10))


def chis(product: tuple[float, float] = (1e-3, 1e3)) -> st.SearchStrategy[tuple[float, float]]:
    """(χ₁, χ₂) of a connected graph, χ₂ ≤ χ₁, with χ₁χ₂ in this range."""
    return st.builds(
        lambda both, ratio: ((both * ratio) ** 0.5, (both / ratio) ** 0.5),
        st.floats(*product),
        st.floats(1, 1e3),
    )


def methods() -> st.SearchStrategy[Dynamics]:
    """Every method of decent, with any constants."""
    step = st.floats(1e-4, 10)
    return st.one_of(st.builds(Gossip, step), st.builds(Acid, step), dadaos())


def dadaos() -> st.SearchStrategy[Dadao]:
    return st.builds(
        lambda mu, condition: Dadao(mu, mu * condition), st.floats(1e-2, 10), st.floats(1, 1e3)
    )
