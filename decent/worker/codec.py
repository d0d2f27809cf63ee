"""What a codec is: how the values of a chunk become bytes on the wire, and what is kept by it.

Each end keeps what its own message decodes to and decodes the other's, so both use the same two
vectors and Σ_i state_i is kept whatever a codec loses. What would not be smaller than the values
themselves is sent as they are, and known by its size. Values that are not finite, or that a codec
cannot hold, do not decode to finite ones, and are never mixed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from decent.errors import ProtocolError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Said:
    """One end's message of a chunk: its bytes, and the values that both ends take it for. They
    stand at the positions `where` of the chunk, ascending; None: at all."""

    payload: Array  # uint8
    values: Array
    where: Array | None = None


@dataclass(frozen=True)
class Codec:
    """Values as they are, and the base of the others."""

    name: ClassVar[str] = "exact"

    @property
    def mixes(self) -> float:
        """Share of the values that an exchange mixes."""
        return 1.0

    @property
    def title(self) -> str:
        """Name and options: what both ends have to have in common."""
        return " ".join([self.name, *(f"{key} = {value}" for key, value in asdict(self).items())])

    def plain(self, dtype: np.dtype[Any], size: int = 1024) -> bool:
        """Whether `size` values are sent as they are."""
        return self._nbytes(size) >= size * dtype.itemsize

    def ask(self, values: Array, agreed: Array | None = None) -> Said:
        """What an initiator sends of a chunk; `agreed`: what both ends had when it was last mixed
        on this edge, for those codecs that look at it."""
        if self.plain(values.dtype, values.size):
            return Said(values.view(np.uint8), values)
        with np.errstate(over="ignore", invalid="ignore"):
            payload = self._encode(values)
            decoded = self._decode(payload, values.size)
            return Said(payload, decoded.astype(values.dtype, copy=False))

    def answer(self, values: Array, asked: Said) -> Said:
        """What a responder sends of its own `values` of the chunk."""
        return self.ask(values)

    def hear(
        self, payload: Array, size: int, dtype: np.dtype[Any], asked: Said | None = None
    ) -> Said:
        """What a payload for a chunk of `size` values says; `asked`: to what it is the answer.
        Raises ProtocolError for anything that is not such a payload."""
        plain, coded = size * dtype.itemsize, self._nbytes(size)
        check_size(payload, size, min(plain, coded))
        if coded >= plain:
            return Said(payload, payload.view(dtype))
        with np.errstate(over="ignore", invalid="ignore"):
            return Said(payload, self._decode(payload, size).astype(dtype, copy=False))

    def lost(self, values: Array, said: Said, agreed: Array | None = None) -> float:
        """‖values − what the peer takes them for‖²."""
        if said.values is values:
            return 0.0
        error = said.values - values
        return float(np.dot(error, error))

    def _nbytes(self, size: int) -> int:
        """Bytes of `size` values where they are coded; more than any others: never."""
        return 2**63

    def _encode(self, values: Array) -> Array:
        raise NotImplementedError

    def _decode(self, payload: Array, size: int) -> Array:
        raise NotImplementedError


def check_size(payload: Array, size: int, nbytes: int) -> None:
    if payload.nbytes != nbytes:
        raise ProtocolError(f"{payload.nbytes} bytes for a chunk of {size} values, not {nbytes}")
