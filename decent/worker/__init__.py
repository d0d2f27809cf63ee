"""One worker as a state machine: exchange, momentum, liveness, global merge. No I/O; numpy only."""

from __future__ import annotations

from decent.worker.clock import Clock, RateMeter, StepClock, UniformClock
from decent.worker.codec import Codec
from decent.worker.context import Context, Stats
from decent.worker.cuts import Cuts, Span, line
from decent.worker.exchanges import Exchanges
from decent.worker.ledger import Ledger
from decent.worker.limits import Limits
from decent.worker.messages import Packet
from decent.worker.reduction import Reduction, spanning_tree
from decent.worker.slots import Slots
from decent.worker.worker import Worker

__all__ = [
    "Clock",
    "Codec",
    "Context",
    "Cuts",
    "Exchanges",
    "Ledger",
    "Limits",
    "Packet",
    "RateMeter",
    "Reduction",
    "Slots",
    "Span",
    "Stats",
    "StepClock",
    "UniformClock",
    "Worker",
    "line",
    "spanning_tree",
]
