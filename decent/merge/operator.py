"""What a merge operator is, and how it is named.

A *reducible* operator is fully described by what one worker weighs: the merged vector is

    x̄ = Σ_i w_i·x_i / Σ_i w_i,        w_i = weight(samples of worker i),

so that any reduction of the pair (w_i·x_i, w_i), along a tree, a ring or a file list, carries it
out. `Apart` alone is none: where it is chosen nothing is merged. Operators of a user's own are
named "package.module:object", the object being an instance or something that makes one.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from decent import plugins
from decent.errors import ModelError
from decent.merge.apart import Apart
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


BUILT_IN: dict[str, type[Mean] | type[Weighted] | type[Apart]] = {
    operator.name: operator for operator in (Mean, Weighted, Apart)
}


def get(name: str, **options: Any) -> Merge:
    """The operator called `name`: one of ours, or "package.module:object"."""

    def ready(found: Any) -> bool:
        return isinstance(found, Merge)

    made = plugins.build("merge operator", name, BUILT_IN, options, ModelError, ready)
    if not isinstance(made, Merge):
        raise ModelError(f"merge operator {name!r} is {made!r}", "`name` and `weight(samples)`")
    return made
