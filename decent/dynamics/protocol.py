"""What a method of training is to the rest of decent, and the checks its constants share.

A `Dynamics` turns how well the graph mixes into a `System`. The graph counts through two numbers
of the Laplacian Λ weighted by the edges' rates (exchanges per unit of time), as achieved:

    χ₁ = 1/λ₂(Λ)                                            its slowest mode
    χ₂ = max over edges of ½ (e_i − e_j)ᵀ Λ⁺ (e_i − e_j)    its largest effective resistance

(DADAO, Nabli & Oyallon, ICML 2023, §3). Both are times: rates that fall to a half double both, so
to follow achieved rates is to call `system` again with (χ₁, χ₂)/ratio. A worker alone has
χ₁ = χ₂ = 0.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from decent.dynamics.system import State, System
from decent.errors import DynamicsError
from decent.topology import Topology


@runtime_checkable
class Dynamics(Protocol):
    """How an exchange and a gradient change the state of a worker."""

    @property
    def name(self) -> str:
        """What reports and configurations call it."""

    def system(self, chi_1: float, chi_2: float) -> System:
        """The constants for rates with these χ's, in units of time."""

    def initial(self, x: State) -> State:
        """A new state [S, d], at rest at the parameters `x[d]`."""


def system_on(dynamics: Dynamics, topology: Topology) -> System:
    """The constants of `dynamics` for the rates of `topology`. Its χ's, which take a while on
    thousands of workers, are left alone where the dynamics has `uses_chi = False`."""
    if not getattr(dynamics, "uses_chi", True):
        return dynamics.system(1.0, 1.0)
    return dynamics.system(topology.chi_1, topology.chi_2)


def check_positive(name: str, value: float) -> None:
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise DynamicsError(f"{name} = {value!r}", "a finite number above 0")


def check_chi(chi_1: float, chi_2: float) -> None:
    """χ's of a connected graph are both positive and finite; those of one worker are both 0."""
    if not (0 < chi_1 < math.inf and 0 < chi_2 < math.inf) and not chi_1 == chi_2 == 0:
        raise DynamicsError(
            f"χ₁ = {chi_1!r}, χ₂ = {chi_2!r}",
            "both positive and finite, or both 0 for a worker alone",
            "make sure that edges with a rate above 0 connect all the workers",
        )
