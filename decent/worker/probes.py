"""±1 probe vectors: what a vector comes to in a few random directions, at one reading of it.

    ⟨p_k, v⟩,  k < PROBES,   p_k[r·WIDTH + c] = row_k[r] · column_k[c],   row, column = ±1

A part of more than DENSE values is laid out in rows of WIDTH, and the sign of an entry is that of
its row times that of its column: entries are independent pair by pair, so that E⟨p, v⟩² = ‖v‖² as
with signs drawn one by one (Alon, Matias & Szegedy, "The space complexity of approximating the
frequency moments", 1999, need little more), but a probe is kept in d/WIDTH signs, and all probes
are one product of matrices. Signs come of the run's seed and the chunk's number: everyone draws the
same, and nobody stores or sends them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decent.schedule import stream

Array = np.ndarray[Any, Any]
Sums = NDArray[np.float64]

PROBES = 2
DENSE = 16_384
WIDTH = 512
"""Sums of so many values are in the vector's own precision, those above in double: what is rounded
off stays within a few eps·‖v‖."""


class Probes:
    """The probes of a run's `seed`, by chunk and by how many of its first values."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._signs: dict[tuple[int, int], tuple[Array, Sums]] = {}  # → columns, rows

    def __call__(self, chunk: int, part: Array) -> Sums:
        """[PROBES]: the probes' products with `part`, the first values of that chunk."""
        return self.on(chunk, part)()

    def on(self, chunk: int, part: Array) -> Callable[[], Sums]:
        """The same, for a part that changes in place, at less cost each time."""
        columns, rows = self._signs.get((chunk, part.size)) or self._draw(chunk, part)
        if part.size <= DENSE:
            return lambda: np.array([signs.dot(part) for signs in columns], np.float64)
        rest = part.size % WIDTH
        whole, last = part[: part.size - rest].reshape(-1, WIDTH), part[part.size - rest :]
        if not rest:
            return lambda: np.einsum("rk,rk->k", rows, whole @ columns)
        most, lowest, some = rows[:-1], rows[-1], columns[:rest]
        return lambda: np.einsum("rk,rk->k", most, whole @ columns) + lowest * (last @ some)

    def _draw(self, chunk: int, part: Array) -> tuple[Array, Sums]:
        draws = stream(self._seed, "probe", chunk)
        dense = part.size <= DENSE
        columns = draws.choice((-1.0, 1.0), (PROBES, part.size) if dense else (WIDTH, PROBES))
        rows: Sums = draws.choice((-1.0, 1.0), (-(-part.size // WIDTH), PROBES))
        self._signs[chunk, part.size] = columns.astype(part.dtype), rows
        return self._signs[chunk, part.size]
