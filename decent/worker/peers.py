"""What a worker knows of each peer: whether they have met, when it was heard, how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from decent.worker.exchange import Answers
from decent.worker.limits import Limits
from decent.worker.roundtrip import RoundTrip
from decent.worker.window import Window

State = Literal["expected", "alive", "silent", "dead"]


def suspended(peers: Mapping[int, Peer]) -> set[int]:
    """Those that are silent or dead."""
    return {peer.id for peer in peers.values() if peer.state in ("silent", "dead")}


@dataclass
class Peer:
    """One peer of this worker, as seen from here."""

    id: int
    since_s: float
    epoch: int = -1  # of its latest incarnation; −1 until it has greeted us
    heard_s: float = 0.0
    state: State = "expected"
    answers: Answers = field(default_factory=Answers)
    round_trip: RoundTrip = field(default_factory=RoundTrip)  # of chunks
    pulse: RoundTrip = field(default_factory=RoundTrip)  # of signs of life
    window: Window = field(default_factory=Window)
    doubt: str = ""  # why it seems that we shall never meet it
    seq: int = 0  # of our next exchange with it
    blind: bool = False  # it should have seen our values, and did not
    gone: bool = False  # it has said that it stops for good, in this epoch

    @property
    def greeted(self) -> bool:
        return self.epoch >= 0

    @property
    def met(self) -> bool:
        """It has greeted us, and answered our greeting."""
        return self.greeted and self.round_trip.mean_s is not None

    def hear(self, now_s: float) -> bool:
        """A sign of life; True if the peer was silent until now. The dead stay dead, unless they
        are taken back first."""
        back = self.state == "silent"
        self.heard_s = now_s
        if self.state != "dead":
            self.state = "alive"
        return back

    def excuse(self, absent_s: float) -> None:
        """We were absent, and could not have heard the peer."""
        self.since_s += absent_s
        self.heard_s += absent_s

    def judge(self, now_s: float, limits: Limits) -> State | None:
        """The peer's state, if it has just changed for the worse."""
        before = self.state
        silence_s = now_s - (self.since_s if before == "expected" else self.heard_s)
        if before == "dead":
            return None
        if before == "expected":
            self.state = "dead" if silence_s > limits.start_s else "expected"
        elif silence_s > limits.dead_s:
            self.state = "dead"
        elif silence_s > limits.silent_s:
            self.state = "silent"
        return self.state if self.state != before else None
