"""A run of real processes under faults, from its configuration to the verdict.

The workers are those of `decent launch`: its processes, sockets and protocol. What is changed is
said in `prepared`, and stands in the run's config.toml. Between the processes stands a proxy, which
the workers find in the run folder (see `Storm`). Nothing is waited for without a bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from decent.chaos import faults
from decent.chaos.faults import Fault, Kind
from decent.chaos.storm import Storm
from decent.chaos.verdict import judge
from decent.chaos.watch import Hang, Watchdog, last_words
from decent.config import Config, Named
from decent.errors import ConfigError
from decent.folder import write_json
from decent.launcher import launch
from decent.launcher.local import Status
from decent.runtime.security import encrypts
from decent.transport import bounds
from decent.worker.frames import HEADER_BYTES

FILE = "chaos.json"
TASK = "decent.chaos.paced:Paced"
STILL_S, STILL = 45.0, 3.0
"""what counts as a hang: seconds without progress, and in parts of the time until a peer is dead"""


@dataclass(frozen=True)
class Wanted:
    """Which faults, how many a second, for how long: while training lasts, and `tail_s` beyond, as
    the merge is to have some too."""

    kinds: tuple[Kind, ...] = faults.KINDS
    rate: float = 4.0
    duration_s: float = 30.0
    tail_s: float = 10.0

    def __post_init__(self) -> None:
        for name, value in (("--rate", self.rate), ("--duration", self.duration_s)):
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"{name} {value}", "a finite number above 0")


def prepared(config: Config, wanted: Wanted, shared_memory: bool = False) -> Config:
    """The run to make: steps of `simulation.step_s` for as long as faults last, with ledgers, and
    all payloads over the proxy unless they are wanted in shared memory. Raises ConfigError for what
    has no proxy's place."""
    topology = config.make_topology()
    if topology.n < 2:
        raise ConfigError(f"{topology.n} worker", "2 or more: faults are between them")
    if config.apart:
        raise ConfigError("workers kept apart", "some that exchange: faults are between them")
    if config.method is not None:
        raise ConfigError(f"method = {config.method.name!r}", "a run of real processes")
    if encrypts(config, topology):
        raise ConfigError(
            "an encrypted run", "one that a proxy can stand in the middle of",
            "leave runtime.encrypt out and let the workers listen on 127.0.0.1",
        )  # fmt: skip
    step_s = config.simulation.step_s
    if config.task.name != TASK:
        options = {"task": config.task.name, "step_s": step_s, **config.task.options}
        config = replace(config, task=Named(name=TASK, options=options))
    runtime = replace(config.runtime, ledger=True, shared_memory=shared_memory)
    return replace(config, runtime=runtime, steps=math.ceil(wanted.duration_s / step_s))


def plan(config: Config, wanted: Wanted) -> list[Fault]:
    """The faults that this run has coming."""
    return faults.plan(
        config.seed, wanted.kinds, wanted.rate, wanted.duration_s + wanted.tail_s,
        config.make_topology(), config.runtime.dead_s,
    )  # fmt: skip


def chaos(
    config: Config,
    wanted: Wanted,
    out: Path,
    *,
    on_status: Callable[[list[Status], int], None] = lambda statuses, injected: None,
) -> dict[str, Any]:
    """Make the run in the folder `out` and judge it; the verdict is also written to chaos.json.
    `config` is a prepared one; `on_status` also gets the number of faults so far.
    Raises InputError for what cannot be run."""
    topology, dead_s = config.make_topology(), config.runtime.dead_s
    most_kib = bounds.chunk_kib(config, apart=False, nbytes=2**62)
    frame_bytes = max(1024 * most_kib, HEADER_BYTES)
    dog = Watchdog(max(STILL_S, STILL * dead_s), 3 * wanted.duration_s + 10 * STILL_S)
    statuses: list[Status] = []
    outcome: dict[str, Any] = {}
    hang, start_s = "", time.monotonic()

    with Storm(plan(config, wanted), topology, out, frame_bytes, config.seed) as storm:

        def watch(now: list[Status]) -> None:
            statuses[:] = now
            storm.watch(now)
            on_status(now, len(storm.injected))
            dog(now, time.monotonic())

        try:
            outcome = launch(config, out, on_status=watch)
        except Hang as error:
            hang = "; ".join([f"hang: {error}", *last_words(out, statuses)])
    found = {
        "seed": config.seed, "rate": wanted.rate, "duration_s": wanted.duration_s,
        "workers": topology.n, "edges": len(topology.edges), "codec": config.exchange.codec,
        "shared_memory": config.runtime.shared_memory, "dynamics": config.dynamics.name,
        **judge(out, topology.n, storm, outcome, hang),
        "interrupted": bool(outcome.get("interrupted")), "wall_s": time.monotonic() - start_s,
    }  # fmt: skip
    write_json(out / FILE, found)
    return found
