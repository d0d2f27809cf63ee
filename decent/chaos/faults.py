"""What goes wrong in a chaos run, and when: all of it drawn from a seed before anything starts.

The same seed, kinds, rate, duration and topology give the same faults, always. Fault k lies
somewhere in the k-th interval of 1/rate seconds and has a random stream of its own.

    on an edge     partition   nothing passes, either way
                   delay       messages take `amount` s longer, half to one and a half times that
                   slow        `amount` bytes per second each way; who queues longer than the fault
                               lasts comes through when it ends
                   duplicate   a share `amount` of the messages comes twice
                   corrupt     of a share `amount` some bits are flipped, in `target`
                   reorder     a share `amount` is held back, and others overtake it
    on a worker    pause       `target` stands still: its training, its communicator, or both
                   kill        `target` is gone for good

What silences an edge (partition, slow, pause) is kept from lasting so long, one after the other,
that a peer would be given up who is not dead. Those killed leave two thirds of the workers, and
these connected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from decent.errors import ConfigError
from decent.schedule import stream
from decent.topology import Topology
from decent.topology.edges import Edge, connected

Kind = Literal["kill", "pause", "partition", "delay", "duplicate", "corrupt", "reorder", "slow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SILENCES = ("partition", "slow", "pause")
SHARES = {"duplicate": (0.2, 1.0), "reorder": (0.2, 1.0), "corrupt": (0.1, 0.5)}
PROCESSES = ("training", "communicator", "both")
FRAMES = ("header", "payload", "either")
SURVIVORS = 2 / 3
LONGEST, SILENCE = 0.3, 0.6
"""one fault's span, and silence on end, in parts of the time after which a peer counts as dead"""
BREATH_S = 1.5
"""in which a sign of life comes through, so that silence begins anew"""
DRAWS = 50


@dataclass(frozen=True)
class Fault:
    """`at_s` seconds after training has begun, for `span_s`."""

    index: int
    at_s: float
    kind: Kind
    edge: Edge | None = None
    worker: int | None = None
    span_s: float = 0.0
    amount: float = 0.0
    target: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


def check_kinds(given: str) -> tuple[Kind, ...]:
    """The kinds in "kill,pause", in our order."""
    named = {each.strip() for each in given.split(",") if each.strip()}
    unknown = sorted(named - {*KINDS})
    if unknown or not named:
        raise ConfigError(
            f"--faults {given!r}", f"some of {','.join(KINDS)}",
            f"remove {', '.join(unknown)}" if unknown else "name one at least",
        )  # fmt: skip
    return tuple(kind for kind in KINDS if kind in named)


def plan(
    seed: int,
    kinds: Sequence[Kind],
    rate: float,
    duration_s: float,
    topology: Topology,
    dead_s: float = 15.0,
) -> list[Fault]:
    """rate·duration faults in order of time; fewer where only kills are wanted, or no edge is
    left that may fall silent."""
    count = math.ceil(rate * duration_s)
    victims = _victims(seed, topology, count) if "kill" in kinds else {}
    others = [kind for kind in kinds if kind != "kill"]
    draw = _Draw(seed, topology, dead_s)
    found = []
    for index in range(count):
        rng = stream(seed, "chaos", index)
        at_s = round((index + float(rng.random())) / rate, 4)
        if index in victims:
            found.append(draw.kill(index, at_s, victims[index], rng))
        elif others:
            found += draw.other(index, at_s, others, rng)
    return found


def _victims(seed: int, topology: Topology, count: int) -> dict[int, int]:
    """Fault → the worker that it kills."""
    rng = stream(seed, "chaos", "kill")
    most = min(topology.n - math.ceil(SURVIVORS * topology.n), count)
    chosen: list[int] = []
    for worker in map(int, rng.permutation(topology.n)):
        if len(chosen) < most and _hang_together(topology, {*chosen, worker}):
            chosen.append(worker)
    when = sorted(map(int, rng.choice(count, len(chosen), replace=False)))
    return dict(zip(when, chosen, strict=True))


def _hang_together(topology: Topology, dead: set[int]) -> bool:
    """Whether those left do."""
    left = [worker for worker in range(topology.n) if worker not in dead]
    number = {worker: k for k, worker in enumerate(left)}
    edges = [(number[i], number[j]) for i, j in topology.edges if i in number and j in number]
    return connected(len(left), edges)


class _Silences:
    """Since when and until when each edge is silent, as far as planned."""

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._known: dict[Edge, tuple[float, float]] = {}

    def allow(self, edges: Iterable[Edge], at_s: float, span_s: float) -> bool:
        """Whether these may fall silent then; noted if so."""
        longer = {edge: self._with(edge, at_s, at_s + span_s) for edge in edges}
        if any(end_s - start_s > self._most_s for start_s, end_s in longer.values()):
            return False
        self._known |= longer
        return True

    def _with(self, edge: Edge, at_s: float, until_s: float) -> tuple[float, float]:
        start_s, end_s = self._known.get(edge, (at_s, at_s))
        return (at_s if at_s > end_s + BREATH_S else start_s), max(end_s, until_s)


class _Draw:
    """Draws one fault after the other among those who live."""

    def __init__(self, seed: int, topology: Topology, dead_s: float) -> None:
        self._alive, self._edges = list(range(topology.n)), list(topology.edges)
        self._longest_s = LONGEST * dead_s
        self._silences = _Silences(SILENCE * dead_s)

    def kill(self, index: int, at_s: float, worker: int, rng: np.random.Generator) -> Fault:
        self._alive.remove(worker)
        self._edges = [edge for edge in self._edges if worker not in edge]
        return Fault(index, at_s, "kill", worker=worker, target=str(rng.choice(PROCESSES)))

    def other(
        self, index: int, at_s: float, kinds: Sequence[Kind], rng: np.random.Generator
    ) -> list[Fault]:
        """One fault; none if none was found that may be."""
        for _ in range(DRAWS if self._edges else 0):
            kind = kinds[int(rng.integers(len(kinds)))]
            span_s = round(_between(rng, 0.2, self._longest_s), 4)
            fault = self._pause if kind == "pause" else self._link
            drawn = fault(index, at_s, kind, span_s, rng)
            if kind not in SILENCES or self._silences.allow(self._touched(drawn), at_s, span_s):
                return [drawn]
        return []

    def _touched(self, fault: Fault) -> list[Edge]:
        if fault.edge is not None:
            return [fault.edge]
        return [edge for edge in self._edges if fault.worker in edge]

    def _pause(
        self, index: int, at_s: float, kind: Kind, span_s: float, rng: np.random.Generator
    ) -> Fault:
        worker = self._alive[int(rng.integers(len(self._alive)))]
        target = str(rng.choice(PROCESSES))
        return Fault(index, at_s, kind, worker=worker, span_s=span_s, target=target)

    def _link(
        self, index: int, at_s: float, kind: Kind, span_s: float, rng: np.random.Generator
    ) -> Fault:
        edge = self._edges[int(rng.integers(len(self._edges)))]
        amount = 0.0
        if kind == "delay":
            amount = _between(rng, 0.02, 1.0)
        elif kind == "slow":
            amount = _between(rng, 3e3, 3e5)
        elif kind in SHARES:
            amount = float(rng.uniform(*SHARES[kind]))
        target = str(rng.choice(FRAMES)) if kind == "corrupt" else ""
        return Fault(index, at_s, kind, edge, None, span_s, float(f"{amount:.4g}"), target)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return float(np.exp(rng.uniform(math.log(low), math.log(max(low, high)))))
