"""One worker's halves of single chunks: what is said of a chunk, what is heard, what is mixed.

Nothing here knows of sequences, repeats or peers' moods; `exchanges` does.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from decent.errors import ProtocolError, RuntimeFault
from decent.worker import messages as m
from decent.worker.clock import RateMeter
from decent.worker.codec import Codec, Said, check_size
from decent.worker.coder import Coder
from decent.worker.context import Context
from decent.worker.slots import Array, Slots

NOT_FINITE = "the difference is not finite"


class Mixing:
    """Between the chunks of `slots` and messages about them."""

    def __init__(self, context: Context, slots: Slots, meter: RateMeter, codec: Codec) -> None:
        self.context, self.slots, self.meter = context, slots, meter
        self.coder = Coder(codec, slots, context.stats)

    def shows(self, peer: int) -> bool:
        """Whether that peer can take our messages from where our values stand."""
        return self._plain and self.context.near.sees(peer)

    @property
    def _plain(self) -> bool:
        """Whether messages are the live values themselves."""
        return self.coder.exact and self.slots.plain_message

    def say(self, peer: int, chunk: int, now_s: float) -> Said:
        """Our message of a chunk, as the one who starts."""
        said = self.coder.ask(peer, chunk, self._snapshot(peer, chunk, now_s))
        self.sent(said.values.size)
        return said

    def show(self, chunk: int, now_s: float) -> None:
        """Let a peer take it from where it stands."""
        self.slots.drift(chunk, self.context.clock.time(now_s))
        self.context.stats.bytes_sent += self.coder.size(chunk) * self.slots.array.itemsize
        self.sent(self.coder.size(chunk))

    def answer(self, peer: int, asking: m.Asking, packet: m.Packet, now_s: float) -> Array:
        """Mix our half of a chunk; the payload that tells the peer with what. Raises ProtocolError
        if it cannot be mixed, Overwritten if the payload is gone; then nothing has changed."""
        assert packet.payload is not None
        if isinstance(asking, m.Look) and not self._plain:
            raise ProtocolError("a look, where messages are not the values themselves")
        if self.coder.exact:
            return self._meet(peer, asking, packet, now_s)
        chunk = asking.chunk
        theirs = self.coder.hear(packet.payload, chunk)
        ours = self.coder.answer(self._snapshot(peer, chunk, now_s), theirs)
        difference = self.coder.difference(chunk, ours, theirs)
        self._mix(packet, chunk, difference, asking.mix, ours, now_s)
        self.coder.agree(peer, chunk, ours, theirs)
        self.sent(ours.values.size)
        return ours.payload

    def apply(
        self, peer: int, packet: m.Packet, ours: Said | None, mix: tuple[float, ...], now_s: float
    ) -> float:
        """Mix our half of a chunk on the peer's answer to what we have said; ‖theirs − ours‖².
        Raises as `answer` does."""
        reply, payload = packet.message, packet.payload
        assert isinstance(reply, m.Answer)
        assert payload is not None
        if isinstance(reply, m.Change):
            change = self.coder.hear_change(payload, reply.chunk)
            return self._mix(packet, reply.chunk, change, mix, ours, now_s, sign=-1.0)
        if ours is None or self.coder.exact:
            raise ProtocolError("a message in answer, where a difference is due")
        theirs = self.coder.hear(payload, reply.chunk, ours)
        difference = self.coder.difference(reply.chunk, ours, theirs)
        squared = self._mix(packet, reply.chunk, difference, mix, ours, now_s)
        self.coder.agree(peer, reply.chunk, ours, theirs)
        return squared

    def sent(self, values: int) -> None:
        self.context.stats.models_sent += values / self.slots.values

    def check(self, ours: Array) -> None:
        """Where our own values are not finite, say so and stop."""
        if not np.isfinite(ours).all():
            self.context.fail(
                RuntimeFault(
                    f"worker {self.context.me}'s parameters are not finite at step "
                    f"{self.context.clock.steps}: training has diverged; try a lower learning rate"
                )
            )

    def diagnose(self, chunk: int, said: Said | None, now_s: float) -> None:
        """Where it was our own message that was not finite, say why and stop."""
        values = self.slots.snapshot(chunk, self.context.clock.time(now_s))
        self.check(values)
        held = said is None or bool(np.isfinite(said.values).all())
        if not held and np.isfinite(values).all():
            self.context.fail(
                RuntimeFault(
                    f"worker {self.context.me} has values up to {np.abs(values).max():.3g}, and "
                    f"codec {self.coder.codec.title!r} cannot hold them: choose another"
                )
            )

    def _snapshot(self, peer: int, chunk: int, now_s: float) -> Array:
        """Where it is sent as it is, in memory that the peer may see."""
        out = self._memory(peer, chunk, answer=False) if self.coder.exact else None
        return self.slots.snapshot(chunk, self.context.clock.time(now_s), out)

    def _memory(self, peer: int, chunk: int, answer: bool) -> Array:
        dtype = self.slots.array.dtype
        nbytes = self.coder.size(chunk) * dtype.itemsize
        return self.context.near.memory(peer, answer, chunk, nbytes).view(dtype)

    def _meet(self, peer: int, asking: m.Asking, packet: m.Packet, now_s: float) -> Array:
        """`answer` where nothing is lost on the way: what their message differs by from ours."""
        chunk, time = asking.chunk, self.context.clock.time(now_s)
        difference, theirs = self._memory(peer, chunk, answer=True), packet.payload
        assert theirs is not None
        check_size(theirs, difference.size, difference.nbytes)
        theirs, mix = theirs.view(difference.dtype), np.array(asking.mix)
        if self.slots.meet(chunk, time, theirs, mix, difference, packet.intact) is None:
            self._unmixed(chunk, None, now_s)
        self._mixed(chunk, difference.size, time)
        self.sent(difference.size)
        return difference.view(np.uint8)

    def _mix(
        self,
        packet: m.Packet,
        chunk: int,
        difference: Array,
        mix: tuple[float, ...],
        ours: Said | None,
        now_s: float,
        sign: float = 1.0,
    ) -> float:
        time = self.context.clock.time(now_s)
        squared = self.slots.add(chunk, time, difference, np.array(mix), packet.intact, sign)
        if squared is None:
            self._unmixed(chunk, ours, now_s)
        self._mixed(chunk, difference.size if ours is None else ours.values.size, time)
        return squared

    def _mixed(self, chunk: int, values: int, time: float) -> None:
        self.context.stats.values_mixed += self.coder.size(chunk)
        self.meter.count(values / self.slots.values, time)

    def _unmixed(self, chunk: int, ours: Said | None, now_s: float) -> NoReturn:
        self.diagnose(chunk, ours, now_s)
        raise ProtocolError(NOT_FINITE)
