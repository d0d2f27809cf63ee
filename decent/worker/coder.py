"""One worker's codec at work: what it says and hears of chunks, what was agreed, what was lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from decent.worker.codec import Array, Codec, Said, check_size
from decent.worker.context import Stats
from decent.worker.slots import Slots


class Coder:
    """Turns chunks of `slots` into messages and back. Keeps what it and each peer agreed on, chunk
    by chunk, if the codec asks for it; sums up the codec's error into `stats.codec_error`."""

    def __init__(self, codec: Codec, slots: Slots, stats: Stats) -> None:
        self.codec, self.stats = codec, stats
        self._slots, self._dtype = slots, slots.array.dtype
        self._agreed: dict[tuple[int, int], Array] = {}  # (peer, chunk)
        self._difference = np.empty(min(slots.chunk, slots.values), self._dtype)
        self._lost = self._norm = 0.0

    @property
    def exact(self) -> bool:
        """Whether values travel as they are, all of them."""
        return self.codec.mixes == 1 and self.codec.plain(self._dtype)

    def size(self, chunk: int) -> int:
        """Its values."""
        return min(self._slots.chunk, self._slots.values - chunk * self._slots.chunk)

    def ask(self, peer: int, chunk: int, values: Array) -> Said:
        agreed = self._agreed.get((peer, chunk))
        said = self.codec.ask(values, agreed)
        self._count(values, said, agreed)
        return said

    def answer(self, values: Array, asked: Said) -> Said:
        said = self.codec.answer(values, asked)
        self._count(values, said, None)
        return said

    def hear(self, payload: Array, chunk: int, asked: Said | None = None) -> Said:
        """What a peer says of `chunk`; `asked`: what we have said. Raises ProtocolError."""
        return self.codec.hear(payload, self.size(chunk), self._dtype, asked)

    def hear_change(self, payload: Array, chunk: int) -> Array:
        """The difference that a peer has mixed of `chunk`. Raises ProtocolError."""
        check_size(payload, self.size(chunk), self.size(chunk) * self._dtype.itemsize)
        return payload.view(self._dtype)

    def difference(self, chunk: int, ours: Said, theirs: Said) -> Array:
        """Theirs − ours over the whole chunk, 0 where nothing was said. Lasts until the next."""
        difference = self._difference[: self.size(chunk)]
        if ours.where is None:
            return np.subtract(theirs.values, ours.values, out=difference)
        difference[:] = 0
        difference[ours.where] = theirs.values - ours.values
        return difference

    def agree(self, peer: int, chunk: int, ours: Said, theirs: Said) -> None:
        """Both ends have mixed these."""
        if self.codec.mixes == 1:
            return
        mean = (ours.values + theirs.values) / 2
        if ours.where is None:
            self._agreed[peer, chunk] = mean
        elif (peer, chunk) in self._agreed:
            self._agreed[peer, chunk][ours.where] = mean

    def forget(self, peer: int) -> None:
        """The peer has lost its memory."""
        for key in [key for key in self._agreed if key[0] == peer]:
            del self._agreed[key]

    def state(self) -> dict[str, Any]:
        """What `restore` needs; arrays are the live ones."""
        agreed = [[*key, values] for key, values in self._agreed.items()]
        return {"agreed": agreed, "lost": self._lost, "norm": self._norm}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._agreed = {(peer, chunk): values for peer, chunk, values in state["agreed"]}
        self._lost, self._norm = state["lost"], state["norm"]

    def _count(self, values: Array, said: Said, agreed: Array | None) -> None:
        if said.values is values:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            lost, norm = self.codec.lost(values, said, agreed), float(np.dot(values, values))
        if math.isfinite(lost + norm) and norm:
            self._lost, self._norm = self._lost + lost, self._norm + norm
            self.stats.codec_error = math.sqrt(self._lost / self._norm)
