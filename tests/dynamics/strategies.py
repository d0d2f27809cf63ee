"""Hypothesis strategies for linear systems with jumps, for methods, and for states.

Entries are of order 1 and kicks well away from 0 in slot 0, so that what is compared is the
mathematics, to a tolerance near rounding, and not the conditioning of the draw.
"""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decent.dynamics import Acid, Array, Dadao, Dynamics, Gossip, System

SLOTS = ("x", "x̃", "y", "ỹ", "z", "z̃")


def numbers(bound: float) -> st.SearchStrategy[float]:
    return st.floats(-bound, bound, allow_subnormal=False)


@st.composite
def systems(draw: st.DrawFn, max_slots: int = len(SLOTS)) -> System:
    """Any system: any flow, probe, residual, message and mix; a kick of slot 0, or none at all."""
    size = draw(st.integers(1, max_slots))
    vector = arrays(np.float64, size, elements=numbers(2))
    first = draw(st.sampled_from([0.0, 1.0, -1.0]) | st.floats(0.5, 2) | st.floats(-2, -0.5))
    kick = draw(vector) if first else np.zeros(size)
    kick[0] = first
    flow = draw(arrays(np.float64, (size, size), elements=numbers(1)))
    return System(SLOTS[:size], flow, draw(vector), draw(vector), kick, draw(vector), draw(vector))


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
