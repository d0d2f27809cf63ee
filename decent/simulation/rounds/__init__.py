"""Round-based methods to compare with, on the same objectives and counted in the same units.

    curve = follow(get("dpsgd"), problem, gradients=1000)

A `Problem` is f_1 … f_n on a graph, a `Method` yields a `Round` after each round, and `follow`
makes a `Curve` of them. One method per file, with its paper in the docstring. `get` finds a method
by its name, or a user's own by "package.module:object".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from decent import plugins
from decent.errors import ConfigError
from decent.simulation.rounds.adom import ADOM
from decent.simulation.rounds.all_reduce import AllReduce
from decent.simulation.rounds.continuized import Continuized
from decent.simulation.rounds.curve import Curve, follow, measures
from decent.simulation.rounds.diloco import DiLoCo
from decent.simulation.rounds.dpsgd import DPSGD
from decent.simulation.rounds.gossip import RandomGossip
from decent.simulation.rounds.gossip_pga import GossipPGA
from decent.simulation.rounds.local_sgd import LocalSGD
from decent.simulation.rounds.method import Method, Round
from decent.simulation.rounds.msda import MSDA
from decent.simulation.rounds.noloco import NoLoCo
from decent.simulation.rounds.problem import Mixing, Problem
from decent.simulation.rounds.tracking import GradientTracking

__all__ = [
    "ADOM",
    "DPSGD",
    "METHODS",
    "MSDA",
    "AllReduce",
    "Continuized",
    "Curve",
    "DiLoCo",
    "GossipPGA",
    "GradientTracking",
    "LocalSGD",
    "Method",
    "Mixing",
    "NoLoCo",
    "Problem",
    "RandomGossip",
    "Round",
    "follow",
    "get",
    "measures",
]

METHODS: dict[str, Callable[..., Method]] = {
    kind.name: kind
    for kind in (
        AllReduce,
        DPSGD,
        GradientTracking,
        RandomGossip,
        GossipPGA,
        LocalSGD,
        DiLoCo,
        NoLoCo,
        MSDA,
        ADOM,
        Continuized,
    )
}


def get(name: str, **options: Any) -> Method:
    """The method called `name`, or the object at "package.module:object", with these options."""

    def ready(found: Any) -> bool:
        return isinstance(found, Method)

    made = plugins.build("method", name, METHODS, options, ConfigError, ready)
    if not isinstance(made, Method):
        raise ConfigError(f"method {name!r}, a {type(made).__name__}", "a name and rounds()")
    return made
