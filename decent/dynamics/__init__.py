"""HOW an exchange and a gradient change the state of a worker: linear systems with jumps.

`System` holds the constants and is the definition of what they do; a `Dynamics` makes one for a
graph's χ₁, χ₂. One method per file, with its paper in the docstring. `get` finds a method by its
name, or a user's own by "package.module:object": a `Dynamics`, or a class or function making one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from decent import plugins
from decent.dynamics.acid import Acid
from decent.dynamics.dadao import Dadao
from decent.dynamics.gossip import Gossip
from decent.dynamics.protocol import Dynamics, system_on
from decent.dynamics.system import Array, State, System, common, conserved, exchange
from decent.errors import DynamicsError

__all__ = [
    "Acid",
    "Array",
    "Dadao",
    "Dynamics",
    "Gossip",
    "State",
    "System",
    "common",
    "conserved",
    "exchange",
    "get",
    "system_on",
]

METHODS: dict[str, Callable[..., Dynamics]] = {kind.name: kind for kind in (Gossip, Acid, Dadao)}


def get(name: str, **options: Any) -> Dynamics:
    """The method called `name`, or the object at "package.module:object", with these options."""

    def ready(found: Any) -> bool:
        return isinstance(found, Dynamics)

    made = plugins.build("dynamics", name, METHODS, options, DynamicsError, ready)
    if not isinstance(made, Dynamics):
        raise DynamicsError(
            f"dynamics {name!r}, a {type(made).__name__}", "a name, system() and initial()"
        )
    return made
