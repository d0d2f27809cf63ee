"""HOW an exchange and a gradient change the state of a worker: linear systems with jumps.

`System` holds the constants and is the definition of what they do; a `Dynamics` makes one for a
graph's χ₁, χ₂. One method per file, with its paper in the docstring. `get` finds a method by its
name, or a user's own by "package.module:object": a `Dynamics`, or a class or function making one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from typing import Any

from decent.dynamics.acid import Acid
from decent.dynamics.dadao import Dadao
from decent.dynamics.gossip import Gossip
from decent.dynamics.protocol import Dynamics
from decent.dynamics.system import Array, State, System, exchange
from decent.errors import DynamicsError

__all__ = ["Acid", "Array", "Dadao", "Dynamics", "Gossip", "State", "System", "exchange", "get"]

METHODS: dict[str, Callable[..., Dynamics]] = {kind.name: kind for kind in (Gossip, Acid, Dadao)}


def get(name: str, **options: Any) -> Dynamics:
    """The method called `name`, or the object at "package.module:object", with these options."""
    found = _load(name) if ":" in name else METHODS.get(name)
    if found is None:
        known = ", ".join(map(repr, METHODS))
        raise DynamicsError(f"dynamics {name!r}", f"one of {known}, or 'package.module:object'")
    if isinstance(found, type) or not isinstance(found, Dynamics):
        found = _make(name, found, options)
    elif options:
        raise DynamicsError(f"dynamics {name!r} with {_listed(options)}", "no options: it is made")
    if not isinstance(found, Dynamics):
        raise DynamicsError(
            f"dynamics {name!r}, a {type(found).__name__}", "a name, system() and initial()"
        )
    return found


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return attrgetter(attribute)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise DynamicsError(f"dynamics {path!r} ({error})", "'package.module:object'") from error


def _make(name: str, factory: Any, options: dict[str, Any]) -> Any:
    try:
        signature = inspect.signature(factory)
        signature.bind(**options)
    except (TypeError, ValueError) as error:
        raise DynamicsError(
            f"dynamics {name!r} with {_listed(options)} ({error})",
            f"options out of {_listed(signature.parameters)}"
            if callable(factory)
            else "a Dynamics, or a class or function that makes one",
        ) from error
    return factory(**options)


def _listed(names: Any) -> str:
    return ", ".join(map(repr, names)) or "no options"
