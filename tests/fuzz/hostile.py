"""Packets that decode well and mean harm: any sender, epoch, exchange, chunk, mixture and payload.

A `Liar` speaks for one worker of the run, as whoever holds its key can; a stranger for one that is
none of it, or in the wrong direction. Fields are drawn near to what is plausible as often as far
from it, so that packets get past the first check.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from random import Random
from typing import Any, get_args

import numpy as np

from decent.worker import Packet, Worker
from decent.worker import messages as m

HUGE = [2**31, 2**32, 2**53 - 1]
KINDS: tuple[type[m.Message], ...] = get_args(m.Any_)
WAVES = tuple(kind for kind in KINDS if issubclass(kind, m.Wave))
EXCHANGES = tuple(kind for kind in KINDS if issubclass(kind, m.Addressed))
ANSWERS = ("Reply", "Change", "Decline")
REALS = [0.0, 0.5, -0.5, 1.0, 1e-300, 1e300, -1e300]
WORDS = ["", "merging", "both ends started at once", "the difference is not finite", "x" * 9000]


@dataclass
class Liar:
    """Makes packets for `victim` in the name of worker `src`. `tame`: of the values that are mixed
    in, none is large enough to drown the others; else there are all kinds."""

    src: int
    victim: Worker
    random: Random
    tame: bool = False

    def packet(self, *kinds: type[m.Message]) -> Packet:
        """One of these kinds; of all without any."""
        kind = self.random.choice(kinds or KINDS)
        return self.sign(kind, **(self.greeting() if kind is m.Hello else {}))

    def sign(self, kind: type[m.Message], **given: Any) -> Packet:
        """One of this kind, with what is given, and the rest drawn."""
        chunk, payload = self.chunk(), None
        if issubclass(kind, m.WithPayload):
            payload = self.coded(chunk) if issubclass(kind, m.Coded) else self.whole()
        fields = {
            name: given[name] if name in given else self.field(name, kind, chunk, payload)
            for name in kind.__struct_fields__
        }
        if payload is None:
            return Packet(kind(**fields))
        right = self.random.random() < 0.95
        check = m.checksum(payload) if right else self.random.getrandbits(64)
        return Packet(kind(**fields), payload, check)

    def field(self, name: str, kind: type[m.Message], chunk: int, payload: Any) -> Any:
        match name:
            case "src":
                return self.src
            case "dst":
                return self.victim.me
            case "seq":
                return self.seq(kind.__name__ not in ANSWERS)
            case "chunk":
                return chunk
            case "settled":
                return self.random.choice([0, 0, chunk, *HUGE])
            case "asked_s":
                return self.random.choice([0.0, 1.0, -1e300, 1e300])
            case "answer":
                return self.random.random() < 0.5
            case "cut" | "steps":
                return self.random.choice([0, 0, 0, 1, *HUGE])
            case "of":
                return self.dead()
            case "round":
                return self.random.choice([0, 0, 0, 1, *HUGE])
            case "weight":
                return self.random.choice([1.0, 1e-320, 1e300])
            case "reason":
                return self.random.choice(WORDS)
        return getattr(self, name)()

    def greeting(self) -> dict[str, Any]:
        """What a Hello holds beside its head: right as often as not."""
        fields: dict[str, Any] = asdict(self.victim.identity)
        if self.random.random() < 0.2:
            name = self.random.choice(["workers", "values", "chunk", "digest", "codec"])
            fields[name] = "x" if isinstance(fields[name], str) else self.random.choice(HUGE)
        asked_s = self.random.choice([0.0, 1e300, -1e300, 5.0])
        to_epoch = self.random.choice([-1, self.to_epoch()])
        return fields | {
            "answer": self.random.random() < 0.5, "asked_s": asked_s, "to_epoch": to_epoch
        }  # fmt: skip

    # parts

    def epoch(self) -> int:
        peer = self.victim.peers.get(self.src)
        known = peer.epoch if peer is not None else 0
        return self._near(max(0, known), 0.9)

    def to_epoch(self) -> int:
        return self._near(self.victim.context.epoch, 0.95)

    def seq(self, mine: bool) -> int:
        """Of an exchange: the liar's own, or one that the victim has begun."""
        peer = self.victim.peers.get(self.src)
        known = 0 if peer is None else peer.answers.seq if mine else peer.seq - 1
        return self._near(max(0, known + self.random.choice([0, 0, 1])), 0.98)

    def chunk(self) -> int:
        return self._near(self.random.randrange(self.victim.slots.chunks), 0.95)

    def dead(self) -> tuple[int, ...]:
        """Any; but one of the run spares those who listen, as it would be believed."""
        n = self.victim.topology.n
        some = [each for each in range(n) if self.random.random() < 0.2]
        beyond = range(10_000, 10_000 + self.random.choice([0] * 20 + [1, 1, 5000]))
        believed = self.src < n and self.src != self.victim.me
        return tuple(each for each in some if not believed or each == self.src) + tuple(beyond)

    def mix(self) -> tuple[float, ...]:
        right = tuple(map(float, self.victim.slots.system.mix))
        if self.tame or self.random.random() < 0.5:
            return right
        count = self.random.choice([len(right), len(right), 0, len(right) + 1, m.SLOTS])
        return tuple(self.random.choice(REALS) for _ in range(count))

    def coded(self, chunk: int) -> np.ndarray[Any, Any]:
        """What a codec may have made of a chunk; or anything."""
        slots, draw = self.victim.slots, self.random.random()
        span = slots.span(min(chunk, slots.chunks - 1))
        values = self.values(span.stop - span.start)
        if draw < 0.6:
            said = self.victim.codec.ask(values, np.zeros_like(values) if draw < 0.3 else None)
            return said.payload
        size = values.nbytes if draw < 0.8 else self.random.randint(1, values.nbytes)
        size += values.nbytes if self.tame else 0  # as values they might be anything
        return np.frombuffer(self.random.randbytes(size), np.uint8)

    def values(self, size: int) -> np.ndarray[Any, Any]:
        dtype = self.victim.slots.array.dtype
        values = np.array([self.random.gauss(0, 1) for _ in range(size)]).astype(dtype)
        if not self.tame and self.random.random() < 0.3:
            with np.errstate(over="ignore"):
                values[self.random.randrange(size)] = self.random.choice(
                    [np.nan, np.inf, -np.inf, 1e15, -1e-40, np.finfo(dtype).max]
                )
        return values

    def whole(self) -> np.ndarray[Any, Any]:
        """A payload of the merge."""
        slots = self.victim.slots
        return self.values(self.random.randint(1, min(slots.chunk, slots.values)))

    def _near(self, value: int, share: float) -> int:
        if self.random.random() < share:
            return value
        return self.random.choice([0, value + 1, max(0, value - 1), *HUGE])
