"""Checkpoints of all workers that fit together, though nobody gives the word for them.

Every worker counts its checkpoints and says in each message how many there were: its *cut*. Who
hears of a higher cut takes its own checkpoint of that index first, and acts on the message then
(Briatico, Ciuffoletti & Simoncini, "A distributed domino-effect free recovery algorithm", 1984).
One whose turn has come, after so many local steps, goes ahead by one.

    A worker that goes from cut s to cut c takes one checkpoint, which stands for s + 1 … c.
    Line k: of every worker the checkpoint that stands for k.

Within a line no message has been received that was not sent: what is sent after the sender's
checkpoint carries a cut ≥ k, and its receiver takes its own before it acts on it. For a chunk of an
exchange this leaves, at line k,

    mixed at neither end        the request may be on its way: the initiator asks again
    mixed at the responder      so it is in flight at the initiator, which asks again, and in memory
                                at the responder, which answers the same: it forgets only what a
                                word of the initiator's lets it forget, and that was said before
                                the initiator's checkpoint, after which it no longer flies
    mixed at both ends

and never mixed at the initiator alone, for that would be a reply received and not sent. So all who
go on from one line end every exchange as if nothing had happened: messages on their way at the line
are lost, and lost messages are asked for again. What is settled by rule is so in the line as well.

An exchange's messages wait for the checkpoint (`held`); signs of life only spread the index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from decent.worker import messages as m
from decent.worker.context import Context

HELD = 64
"""messages that may wait for a checkpoint; more are dropped, and will be asked for again"""


class Span(NamedTuple):
    """A checkpoint stands for the cuts after `since`, up to `cut`."""

    since: int
    cut: int


@dataclass
class Cuts:
    """One worker's count. A checkpoint is due every so many local steps; 0: never, whatever others
    say."""

    context: Context
    every: int = 0
    since: int = 0  # the cut before the latest
    wanted: int = 0  # the highest heard of
    step: int = 0  # at which the latest was taken
    held: list[m.Packet] = field(default_factory=list)

    @property
    def due_step(self) -> float:
        """The step at whose end the next is to be taken; if that is past, at once."""
        if not self.every:
            return math.inf
        return self.step if self.wanted > self.context.cut else self.step + self.every

    def hold(self, packet: m.Packet) -> bool:
        """Whether a message from a peer has to wait, or is dropped, until a checkpoint is taken."""
        message, payload = packet.message, packet.payload
        if not self.every or message.cut <= self.context.cut:
            return False
        self.wanted = max(self.wanted, message.cut)
        if not isinstance(message, m.Addressed):
            return False
        if len(self.held) < HELD:  # its memory may be a socket's or a peer's
            copy = m.Packet(message, None if payload is None else payload.copy())
            if packet.intact():
                self.held.append(copy)
        return True

    def take(self) -> None:
        """Count one more, taken now."""
        self.since = self.context.cut
        self.context.cut = max(self.wanted, self.context.cut + 1)
        self.step = self.context.clock.steps

    def released(self) -> list[m.Packet]:
        """The messages that need wait no longer."""
        if not self.held or self.wanted > self.context.cut:
            return []
        held, self.held = self.held, []
        return held


def line(kept: Mapping[int, Iterable[Span]]) -> dict[int, Span]:
    """The newest line of which most workers have their checkpoint: each one's, by worker."""
    spans = {worker: list(each) for worker, each in kept.items()}
    lines: list[dict[int, Span]] = [
        {me: each for me, own in spans.items() for each in own if each.since < k <= each.cut}
        for k in sorted({each.cut for own in spans.values() for each in own})
    ]
    return max(reversed(lines), key=len, default={})
