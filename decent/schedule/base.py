"""What a schedule is: a rule that says when a worker next contacts whom.

A schedule sees its worker through a `View` and yields pairs `(time, peer)`: at local `time` (unit:
one local gradient step) contact `peer`. `peer = None` contacts nobody; it only asks to be woken.
The generator is resumed once that time has come, with `view.time` and `view.progress` up to date,
so it can look before it decides. The two ends of an edge need not agree on anything: each starts
its own share of the edge's exchanges (DESIGN: an edge's clock belongs to one endpoint at a time).

Write one as a class with `contacts(view)`, or as a plain generator function of `view`; options are
dataclass fields. `Poisson`, `Periodic` and `OnePeer` are written with nothing else.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from decent.errors import ScheduleError
from decent.schedule.streams import stream
from decent.topology import Topology

Contact = tuple[float, "int | None"]
Times = NDArray[np.float64]
Workers = NDArray[np.int64]

PATIENCE = 100_000
"""Contacts a schedule may ask for at one local time before it is said to be stuck."""


_NO_MORE = object()


@dataclass
class Moment:
    """Where a worker stands: shared by a view and those derived of it."""

    time: float = 0.0
    progress: float | None = None
    suspended: Collection[int] = ()


@dataclass(frozen=True)
class View:
    """What a worker can see.

    `rates[peer]` is the number of exchanges per unit of time that *this* worker should start with
    that neighbour: half the edge's rate, the other end starts the other half.
    """

    worker: int
    workers: int
    rates: Mapping[int, float]
    rng: np.random.Generator
    moment: Moment = field(default_factory=Moment)

    @property
    def time(self) -> float:
        """Local time: steps done, and the share of the running one."""
        return self.moment.time

    @property
    def progress(self) -> float:
        """Share of the planned steps that is done, 0 … 1. Raises ScheduleError if unplanned."""
        if self.moment.progress is None:
            raise ScheduleError(
                "this schedule looks at progress, but the number of steps is not known",
                "a planned number of steps",
                "pass steps=… to Gossip, or choose a schedule that does not need it",
            )
        return self.moment.progress

    @classmethod
    def of(cls, topology: Topology, worker: int, seed: int) -> View:
        """What `worker` sees of `topology`, with the draws of a run of this seed."""
        halves = {peer: rate / 2 for peer, rate in topology.neighbours(worker).items()}
        return cls(worker, topology.n, halves, stream(seed, "schedule", worker))

    def scaled(self, factor: float) -> View:
        """The same view with all rates multiplied by `factor`."""
        return replace(self, rates={peer: factor * rate for peer, rate in self.rates.items()})

    def draw_peer(self) -> int:
        """A random neighbour, in proportion to the rates."""
        return self._draw(self.rates)

    def in_place_of(self, peer: int) -> int:
        """The peer, or if its edge is suspended (it is silent, or dead) a random one of those whose
        edges are not, in proportion to the rates."""
        suspended = self.moment.suspended
        live = {each: rate for each, rate in self.rates.items() if each not in suspended and rate}
        return self._draw(live) if peer in suspended and live else peer

    def _draw(self, rates: Mapping[int, float]) -> int:
        peers = list(rates)
        cumulative = np.cumsum(list(rates.values()))
        return peers[int(np.searchsorted(cumulative, self.rng.random() * cumulative[-1], "right"))]


@runtime_checkable
class Schedule(Protocol):
    """When a worker talks, and to whom."""

    def contacts(self, view: View) -> Iterator[Contact]:
        """Yield `(time, peer)` with times that never decrease."""
        ...


@dataclass(frozen=True)
class _FromFunction:
    function: Callable[[View], Iterator[Contact]]

    @property
    def name(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))

    def contacts(self, view: View) -> Iterator[Contact]:
        return self.function(view)


def as_schedule(value: Any) -> Schedule:
    """A schedule from an object with `contacts`, a class of such, or a generator function."""
    if isinstance(value, type):
        value = value()
    if isinstance(value, Schedule):
        return value
    if callable(value):
        return _FromFunction(cast(Callable[[View], Iterator[Contact]], value))
    raise ScheduleError(
        f"schedule {value!r}", "an object with contacts(view), or a generator function of view"
    )


class Agenda:
    """Drives one schedule: what is due, when the next is, and that it keeps to its contract."""

    def __init__(self, schedule: Schedule, view: View) -> None:
        self._view = view
        self._name = getattr(schedule, "name", type(schedule).__name__)
        contacts = schedule.contacts(view)
        if not isinstance(contacts, Iterable):
            raise ScheduleError(
                f"schedule {self._name} returned {contacts!r}",
                "pairs (time, peer)",
                "yield each of them",
            )
        self._contacts = iter(contacts)
        self._repeats = 0
        self._log = array("d")  # when the schedule was resumed, and how far the run was
        self._suspended: list[list[int]] = [[0]]  # from which moment on, who
        self.next_time = -math.inf
        self._peer: int | None = None
        self._advance()

    def due(
        self, time: float, progress: float | None = None, suspended: Collection[int] = ()
    ) -> Iterator[int]:
        """Peers to contact by local `time`; lazily, so the schedule decides one at a time."""
        moment = self._view.moment
        moment.time, moment.progress, moment.suspended = time, progress, suspended
        while self.next_time <= time:
            if self._peer is not None:
                yield self._peer
            self._note()
            self._advance()

    def _note(self) -> None:
        moment = self._view.moment
        if self._suspended[-1][1:] != sorted(moment.suspended):
            self._suspended.append([len(self._log) // 2, *sorted(moment.suspended)])
        self._log.extend((moment.time, math.nan if moment.progress is None else moment.progress))

    def state(self) -> dict[str, Any]:
        """What `restore` needs. A generator cannot be copied, but it can be played again: all that
        it looks at are its own draws, and the moments at which it was resumed."""
        return {"moments": np.array(self._log), "suspended": self._suspended}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Play a fresh agenda up to where another one was."""
        moment, since = self._view.moment, {at: who for at, *who in state["suspended"]}
        for k, (time, progress) in enumerate(state["moments"].reshape(-1, 2).tolist()):
            moment.time, moment.progress = time, None if math.isnan(progress) else progress
            moment.suspended = since.get(k, moment.suspended)
            self._advance()
        self._log = array("d", state["moments"].tolist())
        self._suspended = [list(each) for each in state["suspended"]]

    def _advance(self) -> None:
        before = self.next_time
        contact = next(self._contacts, _NO_MORE)
        if contact is _NO_MORE:
            self.next_time, self._peer = math.inf, None
            return
        self.next_time, self._peer = self._checked(contact)
        self._repeats = self._repeats + 1 if self.next_time == before else 0
        if self._repeats > PATIENCE:
            raise ScheduleError(
                f"schedule {self._name} yielded time {before} {PATIENCE} times",
                "times that move on",
            )

    def _checked(self, contact: Any) -> Contact:
        try:
            when, peer = contact
            time = float(when)
        except (TypeError, ValueError):
            raise ScheduleError(
                f"schedule {self._name} yielded {contact!r}", "a pair (time, peer or None)"
            ) from None
        if math.isnan(time) or time < self.next_time:
            raise ScheduleError(
                f"schedule {self._name} yielded time {time} after {self.next_time}",
                "local times that never decrease",
            )
        if peer is not None and peer not in list(self._view.rates):
            raise ScheduleError(
                f"schedule {self._name} yielded peer {peer!r} on worker {self._view.worker}",
                f"one of its neighbours {sorted(self._view.rates)}, or None",
            )
        return time, None if peer is None else int(peer)
