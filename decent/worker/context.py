"""What the parts of one worker share: identity, the way out, counters and the trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from decent.worker import messages as m
from decent.worker.budget import Budget
from decent.worker.clock import Clock
from decent.worker.limits import Limits
from decent.worker.near import Near
from decent.worker.slots import Array

Record = Callable[[dict[str, Any]], None]
TRACED = 100
"""refusals that are traced; a stranger who tries for ever does not fill the disk"""


@dataclass
class Stats:
    """Counters of one worker. `models_sent` counts whole vectors, so chunks count as fractions."""

    started: int = 0
    completed: int = 0
    answered: float = 0.0
    abandoned: int = 0
    models_sent: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    repeated: int = 0  # chunks asked for again
    duplicates: int = 0  # requests that came twice
    values_mixed: int = 0
    refused: int = 0  # messages refused: wrong run, malformed, unknown sender
    refused_keys: int = 0  # connections refused: no key of the run, or another worker's
    damaged: int = 0  # payloads that do not match their checksum
    codec_error: float = 0.0  # ‖decoded − value‖/‖value‖ over all that was encoded here
    last_distance: float = 0.0  # ‖m_i − m_j‖ at the last exchange started here
    round_trips_s: dict[str, float] = field(default_factory=dict)  # peer → of signs of life
    skipped: Counter[str] = field(default_factory=Counter)  # reason → contacts not made

    def as_dict(self) -> dict[str, Any]:
        return {
            **vars(self), "skipped": dict(self.skipped), "round_trips_s": dict(self.round_trips_s)
        }  # fmt: skip


@dataclass
class Context:
    """Identity, time, outbox, counters, trace, and the first fatal error."""

    me: int
    run: str
    epoch: int
    limits: Limits
    clock: Clock
    record: Record
    near: Near = field(default_factory=Near)
    cut: int = 0  # checkpoints taken: the index of the latest (see `cuts`)
    outbox: list[m.Packet] = field(default_factory=list)
    stats: Stats = field(default_factory=Stats)
    fatal: Exception | None = None

    def __post_init__(self) -> None:
        self.budget = Budget(self.limits.bandwidth)

    def send(
        self, to: int, kind: type[m.Message], payload: Array | None = None, **fields: Any
    ) -> None:
        message = kind(src=self.me, dst=to, epoch=self.epoch, cut=self.cut, **fields)
        packet = m.Packet(message, payload)
        if payload is None or self.budget.open:
            self.leave(packet)
        else:
            self.budget.wait(packet)

    def leave(self, packet: m.Packet) -> None:
        self.stats.bytes_sent += packet.nbytes
        self.budget.spend(packet.nbytes)
        self.outbox.append(packet)

    def trace(self, event: str, now_s: float, **fields: Any) -> None:
        time = round(self.clock.time(now_s), 6)
        self.record({"event": event, "t": time, "s": round(now_s, 6), **fields})

    def refuse(self, why: str, now_s: float) -> None:
        """Count what is not for us."""
        self.stats.refused += 1
        if self.stats.refused <= TRACED:
            self.trace("refused", now_s, why=why)

    def fail(self, error: Exception) -> None:
        self.fatal = self.fatal or error
