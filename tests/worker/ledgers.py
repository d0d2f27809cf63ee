"""What the tests of the audit share: a line of three, every dynamics, and ledgers through JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from decent.dynamics import Acid, Dadao, Gossip
from decent.schedule import stream
from decent.topology import family
from decent.worker import Worker

LINE = family("line", 3, rate=1.0)
DYNAMICS = [Gossip(), Acid(), Dadao(1.0, 20.0)]
Ledgers = dict[int, list[dict[str, Any]]]


def learner(seed: int) -> Callable[[Worker], None]:
    def step(worker: Worker) -> None:
        noise = stream(seed, "step", worker.me, worker.context.clock.steps)
        worker.slots.array[0] *= 0.98
        worker.slots.array[0] += 0.1 * noise.normal(size=worker.slots.values)

    return step


def as_written(ledgers: Ledgers) -> Ledgers:
    """Through JSON, as in a run folder."""
    return {me: [json.loads(json.dumps(each)) for each in lines] for me, lines in ledgers.items()}
