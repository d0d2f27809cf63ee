"""The weighted mean of arrays, x̄ = Σ_i w_i·x_i / Σ_i w_i, in double precision.

The arrays are numpy's or torch's, told apart by what they can do, so that this package needs only
numpy. They may come from a generator: one array and one sum are held at a time. The result has the
shape and dtype of the arrays, rounded once; a weight of 0 leaves its array out altogether, whatever
is in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from decent.errors import ModelError

Array = TypeVar("Array")


def average(arrays: Iterable[Array], weights: Sequence[float]) -> Array:
    """The mean of `arrays` by `weights`, one for each; nothing given is changed."""
    shares = check_weights(weights)
    first: Any = None
    total: Any = 0.0
    count = 0
    for count, array in enumerate(arrays, 1):
        if count == 1:
            first = array
            _check_floating(first)
        _check_alike(array, first, count)
        if count <= len(shares) and shares[count - 1]:
            total = total + _double(array) * shares[count - 1]
    if count != len(shares):
        raise ModelError(f"{len(shares)} weights for {count} arrays", "one weight for each")
    mean: Array = _as(total / sum(shares), first)
    return mean


def check_weights(weights: Sequence[float], count: int | None = None) -> list[float]:
    """`weights` in proportion, the largest being 1; refused if they cannot weigh `count` models."""
    if count is not None and len(weights) != count:
        raise ModelError(f"{len(weights)} weights for {count} models", "one weight for each")
    for position, weight in enumerate(weights):
        if not (math.isfinite(weight) and weight >= 0):
            raise ModelError(f"weight {position} is {weight}", "a finite number, 0 or more")
    largest = max(weights, default=0.0)
    if not largest:
        raise ModelError(f"weights {list(weights)}", "at least one above 0")
    return [weight / largest for weight in weights]


def _check_floating(array: Any) -> None:
    floating = getattr(array.dtype, "is_floating_point", None)  # torch's; numpy's has none
    if not (np.issubdtype(array.dtype, np.floating) if floating is None else floating):
        raise ModelError(f"an array of {array.dtype}", "floating-point numbers")


def _check_alike(array: Any, first: Any, count: int) -> None:
    if array.shape != first.shape or array.dtype != first.dtype:
        raise ModelError(
            f"array {count - 1} has shape {tuple(array.shape)} and dtype {array.dtype}",
            f"{tuple(first.shape)} and {first.dtype}, as array 0 has",
        )


def _double(array: Any) -> Any:
    return array.double() if hasattr(array, "double") else array.astype(np.float64)


def _as(total: Any, like: Any) -> Any:
    if hasattr(total, "astype"):
        return total.astype(like.dtype)
    return total.to(like.dtype)
