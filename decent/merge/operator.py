"""What a merge operator is, and how it is named.

A *reducible* operator is fully described by what one worker weighs: the merged vector is

    x̄ = Σ_i w_i·x_i / Σ_i w_i,        w_i = weight(samples of worker i),

so that any reduction of the pair (w_i·x_i, w_i), along a tree, a ring or a file list, carries it
out. Operators of a user's own are named "package.module:object", the object being an instance or
something that makes one when called without arguments.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol, runtime_checkable

from decent.errors import ModelError
from decent.merge.mean import Mean
from decent.merge.weighted import Weighted


@runtime_checkable
class Merge(Protocol):
    """An operator that a sum over the workers can carry out."""

    @property
    def name(self) -> str: ...

    def weight(self, samples: int) -> float:
        """What a worker with a share of `samples` samples weighs: finite and not negative."""
        ...


BUILT_IN: dict[str, type[Mean] | type[Weighted]] = {
    operator.name: operator for operator in (Mean, Weighted)
}


def get(name: str) -> Merge:
    """The operator called `name`: one of ours, or "package.module:object"."""
    if name in BUILT_IN:
        return BUILT_IN[name]()
    if ":" not in name:
        raise ModelError(
            f"merge operator {name!r}",
            f'one of {", ".join(BUILT_IN)} or "package.module:object"',
        )
    made = _imported(name)
    if not isinstance(made, Merge):
        raise ModelError(f"merge operator {name!r} is {made!r}", "`name` and `weight(samples)`")
    return made


def _imported(name: str) -> Any:
    """The object of that name, called first where it is a class or a factory."""
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        maker = isinstance(found, type) or (callable(found) and not hasattr(found, "weight"))
        return found() if maker else found
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ModelError(
            f"merge operator {name!r} ({error})", 'an importable "package.module:object"'
        ) from error
