"""Where this process stands in a run: which worker of how many, in which folder, reporting whereto.

`decent launch` sets it for each worker it starts; without it a script is a world of one worker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decent.config import Config
from decent.errors import ConfigError
from decent.merge import Merge, kept_apart
from decent.schedule import Schedule
from decent.topology import Topology
from decent.worker import Span


@dataclass(frozen=True)
class World:
    """One worker's place. `report` takes a status (see `Gossip`); `gate` returns when all have
    come together; `origin_s` are the monotonic seconds that count as 0 in traces; `span` is the
    checkpoint to go on from. A worker that `rejoins` was started again after it died, while the
    others run; one that `returns` will be, if it dies."""

    me: int = 0
    run: str = "alone"
    folder: Path | None = None
    config: Config = field(default_factory=Config)
    report: Callable[[dict[str, Any]], None] = lambda status: None
    gate: Callable[[], None] = lambda: None
    origin_s: float = field(default_factory=time.monotonic)
    span: Span | None = None
    rejoins: bool = False
    returns: bool = False

    def keeps_apart(self, merge: Merge, schedule: Schedule) -> bool:
        """Whether this worker has nothing to do with others. Raises ConfigError where whoever
        launched it thinks otherwise."""
        apart = kept_apart(merge, schedule)
        if self.folder is not None and apart != self.config.apart:
            raise ConfigError(
                f"merge {merge.name!r} in the script, {self.config.merge.name!r} in the run",
                '"apart" in both or in neither',
                "decent launch --set merge=apart --set schedule=never",
            )
        return apart


_current: World | None = None


def current() -> World | None:
    """The world that `decent launch` has put this process in."""
    return _current


def enter(world: World | None) -> None:
    global _current
    _current = world


def place(world: World | None, topology: Topology | None) -> tuple[World, Topology]:
    """This process's place in a run, and the run's graph, where they are not given."""
    given = world or _current
    if given is None and topology is not None and topology.n > 1:
        raise ConfigError(
            f"a topology of {topology.n} workers in a process that nobody launched",
            "a run under `decent launch`",
            f"start it with: decent launch -n {topology.n} SCRIPT.py",
        )
    alone = Topology(1, (), ())
    return given or World(), topology or (given.config.make_topology() if given else alone)
