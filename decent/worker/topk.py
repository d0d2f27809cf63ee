"""A codec that sends few values of each chunk, exact: those that have changed most.

The initiator chooses the positions where its message differs most from what both ends agreed on,
and sends its values there; the responder its own at the same positions. Both mix these and leave
the others alone, so the sum is kept, position by position. Agreed is the mean of the two values
that were mixed last, in a vector that each end keeps for each peer. What is not sent stays in the
difference from it, and grows until it is: the error feedback of Stich, Cordonnier & Jaggi,
"Sparsified SGD with Memory" (NeurIPS 2018), on messages, as in CHOCO (Koloskova, Stich & Jaggi,
"Decentralized Stochastic Optimization and Gossip Algorithms with Compressed Communication", ICML
2019). There neighbours keep estimates of each other and mix by these, slowly, as they lag behind;
here the values that are mixed are fresh, and need no smaller step.

Nothing is left to send on an edge only where both ends still have what they agreed on; hence
workers at rest are in consensus. An edge's first exchange carries everything. The vectors guide
the choice and nothing else: ends that remember differently (one has restarted) mix correctly.

Payload: the positions, as a bitmap or as uint32, whichever is shorter; then the values. An answer
is values alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from decent.errors import ConfigError, ProtocolError
from decent.worker.codec import Array, Codec, Said, check_size


@dataclass(frozen=True)
class TopK(Codec):
    """`share` of the values of each chunk."""

    share: float = 0.1
    name = "topk"

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ConfigError(f"share = {self.share}", "0 < share ≤ 1")

    @property
    def mixes(self) -> float:
        return self.share

    def ask(self, values: Array, agreed: Array | None = None) -> Said:
        size, count = values.size, self._count(values.size)
        if agreed is None or self._nbytes_of(size, values.dtype) >= values.nbytes:
            return Said(values.view(np.uint8), values)
        where = _largest(np.abs(values - agreed), count)
        chosen = values[where]
        return Said(np.concatenate([self._pack(where, size), chosen.view(np.uint8)]), chosen, where)

    def answer(self, values: Array, asked: Said) -> Said:
        chosen = values if asked.where is None else values[asked.where]
        return Said(chosen.view(np.uint8), chosen, asked.where)

    def hear(
        self, payload: Array, size: int, dtype: np.dtype[Any], asked: Said | None = None
    ) -> Said:
        if asked is not None:
            check_size(payload, size, asked.values.nbytes)
            return Said(payload, payload.view(dtype), asked.where)
        coded = self._nbytes_of(size, dtype)
        if payload.nbytes == size * dtype.itemsize:
            return Said(payload, payload.view(dtype))
        check_size(payload, size, coded)
        values = payload[coded - self._count(size) * dtype.itemsize :].view(dtype)
        return Said(payload, values, self._unpack(payload, size))

    def lost(self, values: Array, said: Said, agreed: Array | None = None) -> float:
        if said.where is None or agreed is None:
            return 0.0
        change = values - agreed
        change[said.where] = 0
        return float(np.dot(change, change))

    def _count(self, size: int) -> int:
        return max(1, min(size, round(self.share * size)))

    def _nbytes_of(self, size: int, dtype: np.dtype[Any]) -> int:
        count = self._count(size)
        return min(-(-size // 8), 4 * count) + count * dtype.itemsize

    def _mapped(self, size: int) -> bool:
        return -(-size // 8) <= 4 * self._count(size)

    def _pack(self, where: Array, size: int) -> Array:
        if not self._mapped(size):
            return where.astype(np.uint32).view(np.uint8)
        mask = np.zeros(size, bool)
        mask[where] = True
        return np.packbits(mask)

    def _unpack(self, payload: Array, size: int) -> Array:
        count = self._count(size)
        if self._mapped(size):
            bits = np.unpackbits(payload[: -(-size // 8)])
            where = np.flatnonzero(bits.view(bool))
        else:
            where = payload[: 4 * count].view(np.uint32).astype(np.intp)
        if where.size != count or where[-1] >= size or (np.diff(where) <= 0).any():
            raise ProtocolError(f"not {count} ascending positions in {size} values")
        return where


def _largest(values: Array, count: int) -> Array:
    """Positions of the `count` largest, ascending; a NaN is larger than any number."""
    least = values.size - count
    where = np.flatnonzero(values >= np.partition(values, least)[least])
    if where.size != count:  # ties, or NaNs
        where = np.sort(np.argpartition(values, least)[least:])
    return where
