"""±1 probe vectors: what a vector comes to in a few random directions, at one reading of it.

    ⟨p_k, v⟩,  k < PROBES,   p_k[r·WIDTH + c] = row_k[r] · column_k[c],   row, column = ±1

The sign of an entry is the product of a sign of its row and one of its column, with each chunk of
the vector laid out in rows of WIDTH entries. Entries are independent pair by pair, so that
E⟨p, v⟩² = ‖v‖² as with signs drawn one by one (Alon, Matias & Szegedy, "The space complexity of
approximating the frequency moments", 1999, need no more), but a probe is kept in d/WIDTH signs, and
all probes are one product of matrices. Signs come of the run's seed and the chunk's number:
everyone draws the same, and nobody stores or sends them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decent.schedule import stream

Array = np.ndarray[Any, Any]
Sums = NDArray[np.float64]

PROBES = 2
WIDTH = 512
"""Sums of so many values are in the vector's own precision, those above in double: what is rounded
off stays below one eps·‖v‖."""


class Probes:
    """The probes of a run's `seed`, chunk by chunk."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._signs: dict[int, tuple[Array, Sums]] = {}  # chunk → columns and rows

    def __call__(self, chunk: int, part: Array) -> Sums:
        """[PROBES]: the probes' products with `part`, the values of that chunk."""
        columns, rows = self._signs.get(chunk) or self._draw(chunk, part)
        whole, rest = divmod(part.size, WIDTH)
        sums = part[: part.size - rest].reshape(whole, WIDTH) @ columns
        last = part[part.size - rest :] @ columns[:rest]
        product: Sums = np.einsum("rk,rk->k", rows[:-1], sums) + rows[-1] * last
        return product

    def _draw(self, chunk: int, part: Array) -> tuple[Array, Sums]:
        draws = stream(self._seed, "probe", chunk)
        columns = draws.choice((-1.0, 1.0), (WIDTH, PROBES)).astype(part.dtype)
        rows: Sums = draws.choice((-1.0, 1.0), (part.size // WIDTH + 1, PROBES))
        self._signs[chunk] = columns, rows
        return self._signs[chunk]
