"""The pairwise exchange, cut into chunks that flow independently; both halves, no I/O.

::

    initiator i                                responder j
      snapshot m_i[c]   ── Request(seq, c) ──▶   in one turn: Δ = m_i − m_j[c]; slots += b·Δ
      slots −= b·Δ      ◀── Change ──            remembers Δ until it is settled

Where the responder can see the initiator's live values (both on one machine), no snapshot is sent:
it is asked to *look*. Sent again, the request carries a snapshot after all. Codecs that lose
something answer with a *reply* instead, a snapshot of the responder's own.

Both ends use the same difference, or the same two snapshots as they are after the codec, and the
same b, and changes are added, so Σ_i state_i is kept whatever happened to either state meanwhile.
(edge, both epochs, seq, chunk) is an idempotency key: a request that comes twice is answered from
memory and changes nothing, and what was meant for a worker's former self is for nobody. The
responder decides on each chunk once: what was declined stays declined, and the initiator waits for
its word on every chunk.

An edge carries one exchange at a time, whoever started it: two that overlap would both act on the
same difference, and momentum would turn that into divergence where links are slow. Where both ends
start at once, the lower one's goes first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from decent.worker import messages as m
from decent.worker.codec import Array, Said
from decent.worker.limits import Limits
from decent.worker.roundtrip import RoundTrip
from decent.worker.window import Window


@dataclass
class InFlight:
    """A chunk that was sent and not yet answered. `said`: None where the peer was to look."""

    said: Said | None
    retry_at_s: float
    pause_s: float
    ahead: int = 1  # how many were in flight, with this one
    full: bool = False  # and that was all of the window


@dataclass
class Exchange:
    """The initiator's half of one exchange with `peer`."""

    peer: int
    seq: int
    mix: tuple[float, ...]
    chunks: int
    started_s: float
    limits: Limits
    round_trip: RoundTrip
    window: Window
    looks: bool = False  # the peer sees our values, and need not be sent them
    flying: dict[int, InFlight] = field(default_factory=dict)
    sent: int = 0
    landed: int = 0
    mixed: int = 0  # values
    squared: float = 0.0  # ‖m_i − m_j‖² over the chunks mixed
    declined: str = ""  # why the peer mixes no more of it

    def sendable(self) -> Iterator[int]:
        """Chunks to send now. The peer remembers replies from the first chunk that is not answered
        on: never more than the largest window."""
        while self.sent < self.chunks and len(self.flying) < self._open:
            if self.sent - self.settled >= self.limits.window:
                break
            self.sent += 1
            yield self.sent - 1

    def fly(self, chunk: int, said: Said | None, now_s: float) -> None:
        pause_s = self.round_trip.pause_s(self.limits, cold=not self.landed)
        ahead = len(self.flying) + 1
        full = self.window.full(ahead, self.limits)
        self.flying[chunk] = InFlight(said, now_s + pause_s, pause_s, ahead, full)

    def overdue(self, now_s: float) -> Iterator[int]:
        """Chunks to send again, each after twice the pause before, up to a limit: bad luck with one
        must not hold up the edge."""
        for chunk, flight in self.flying.items():
            if flight.retry_at_s <= now_s:
                flight.pause_s = self.round_trip.double(flight.pause_s, self.limits)
                flight.retry_at_s = now_s + flight.pause_s
                yield chunk

    def land(self, chunk: int, values: int, squared: float, took_s: float) -> None:
        flight = self.flying.pop(chunk)
        self.round_trip.measure(took_s)
        deviation_s = self.round_trip.deviation_s
        self.window.land(flight.ahead, flight.full, took_s, deviation_s, self.limits)
        self.landed += 1
        self.mixed += values
        self.squared += squared

    def decline(self, chunk: int, reason: str) -> None:
        """Nothing more is sent; other chunks in flight may still have been mixed."""
        del self.flying[chunk]
        self.chunks, self.declined = self.sent, reason or "without a reason"

    @property
    def _open(self) -> int:
        return self.window.open(self.landed, self.limits)

    @property
    def settled(self) -> int:
        """All chunks below this have been answered."""
        return min(self.flying, default=self.sent)

    @property
    def complete(self) -> bool:
        return self.sent == self.chunks and not self.flying

    def retry_at_s(self) -> float:
        return min((flight.retry_at_s for flight in self.flying.values()), default=np.inf)


@dataclass
class Answers:
    """The responder's memory of one peer: at most a window of replies, for one exchange."""

    seq: int = -1
    answered: set[int] = field(default_factory=set)
    replies: dict[int, tuple[type[m.Answer], Array]] = field(default_factory=dict)
    refusal: str = ""  # why no further chunk of it is mixed
    last_s: float = -np.inf

    def begin(self, seq: int) -> None:
        """A new exchange settles every earlier one: an edge has one open at a time."""
        self.seq, self.answered, self.replies, self.refusal = seq, set(), {}, ""

    def busy(self, now_s: float, patience_s: float) -> bool:
        """The peer has not yet applied its half (or its word that it has was lost)."""
        return bool(self.replies) and now_s < self.last_s + patience_s

    def settle(self, below: int) -> None:
        for chunk in [chunk for chunk in self.replies if chunk < below]:
            del self.replies[chunk]

    def crowded(self, window: int) -> str:
        """Why no more can be remembered, in words: the peer keeps no window."""
        unsettled = len(self.replies)
        return "" if unsettled < window else f"{unsettled} chunks before it are not settled"

    def remember(self, chunk: int, kind: type[m.Answer], payload: Array, now_s: float) -> None:
        self.answered.add(chunk)
        self.replies[chunk], self.last_s = (kind, payload), now_s
