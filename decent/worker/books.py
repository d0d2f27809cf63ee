"""The ledgers of a run (see `ledger`) as the audit reads them: halves of exchanges, and periods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from decent.errors import InputError
from decent.worker.ledger import FILE
from decent.worker.probes import PROBES, Array, Sums

Event = dict[str, Any]


End = tuple[int, int]
"""A worker and its epoch: one that restarts begins new books."""


class Key(NamedTuple):
    """One chunk of one exchange: its two halves have it in common."""

    starter: int
    answerer: int
    epochs: tuple[int, int]
    seq: int
    chunk: int

    @property
    def ends(self) -> tuple[End, End]:
        return (self.starter, self.epochs[0]), (self.answerer, self.epochs[1])

    @property
    def edge(self) -> tuple[int, int]:
        return min(self[:2]), max(self[:2])

    def __str__(self) -> str:
        edge = f"edge {self.edge[0]}–{self.edge[1]}"
        return f"{edge}, exchange {self.seq} of worker {self.starter}, chunk {self.chunk}"


@dataclass
class Half:
    """What one end says of a chunk: slot s moved by mix[s]·moved, at `s` seconds."""

    s: float
    moved: Sums  # [PROBES]
    mix: Sums  # [S]
    size: float

    @property
    def brought(self) -> Sums:
        """[S, PROBES]"""
        return np.outer(self.mix, self.moved)


@dataclass
class Period:
    """From one balance of a worker to the next; sums are [S, PROBES]."""

    start_s: float
    end_s: float
    first_step: int
    last_step: int
    opening: Sums
    steps: Sums
    expected: Sums
    held: Sums
    size: float
    events: int
    worst: Event
    conserved: Array  # [C, S]
    halves: dict[Key, Half]


@dataclass
class Book:
    """One worker's ledger, in one of its lives. One that died has not closed it."""

    worker: int
    slots: tuple[str, ...]
    eps: float
    kept: frozenset[int]
    first_step: int = 0
    halves: dict[Key, Half] = field(default_factory=dict)
    in_flight: dict[Key, str] = field(default_factory=dict)  # → why it was given up
    periods: list[Period] = field(default_factory=list)
    merge: Event | None = None
    closed: bool = False
    _open: dict[Key, Half] = field(default_factory=dict)  # since the last balance
    _held: Sums = field(default_factory=lambda: np.zeros((1, PROBES)))

    @classmethod
    def opened(cls, event: Event) -> Book:
        kept, held = frozenset(dict(event["kept"])), np.array(event["held"])
        slots, step = tuple(event["slots"]), event.get("step", 0)
        return cls(event["worker"], slots, event["eps"], kept, step, _held=held)

    def take(self, event: Event) -> None:
        match event["event"]:
            case "exchange":
                self._exchange(event)
            case "in flight":
                for chunk in event["chunks"]:
                    self.in_flight[self._key(event, True, chunk)] = event["reason"]
            case "balance":
                self._balance(event)
            case "merge":
                self.merge = event
            case "closed":
                self.closed = True

    def _key(self, event: Event, mine: bool, chunk: int) -> Key:
        starter, answerer = self.worker, event["peer"]
        if not mine:
            starter, answerer = answerer, starter
        return Key(starter, answerer, tuple(event["epochs"]), event["seq"], chunk)

    def _exchange(self, event: Event) -> None:
        mix = np.array(event["mix"] or [0.0] * len(self.slots))
        said = dict(zip(event["chunks"], event["moved"], strict=True))
        kept = {chunk: moved for chunk, moved in said.items() if chunk in self.kept}
        for halves, parts in ((self.halves, said), (self._open, kept | dict(event["kept"]))):
            for chunk, moved in parts.items():
                key = self._key(event, event["mine"], chunk)
                half = halves.setdefault(key, Half(event["s"], np.zeros(PROBES), mix, 0.0))
                half.moved = half.moved + np.array(moved)
                half.size = max(half.size, event["size"])

    def _balance(self, event: Event) -> None:
        last = self.periods[-1] if self.periods else None
        first = last.last_step if last else self.first_step
        steps, expected, held, kept = (
            np.array(event[name]) for name in ("steps", "expected", "held", "conserved")
        )
        self.periods.append(
            Period(
                last.end_s if last else 0.0, event["s"], first,
                event["step"], self._held, steps, expected, held, event["size"], event["events"],
                event["worst"], kept.reshape(-1, len(self.slots)), self._open,
            )
        )  # fmt: skip
        self._held, self._open = held, {}


def books(lines: Mapping[int, Iterable[Event]]) -> dict[End, Book]:
    """The books of each life of each worker, from the lines of its ledger."""
    found: dict[End, Book] = {}
    for worker, events in sorted(lines.items()):
        book: Book | None = None
        for event in events:
            if event["event"] == "opened":
                book = found[worker, event["epoch"]] = Book.opened(event)
            elif book is not None:
                book.take(event)
    return found


def read(run: Path) -> dict[int, list[Event]]:
    """The ledgers in a run folder, by worker; of one that left none, no lines. Raises InputError
    where there is none at all."""
    homes = {int(path.name): path for path in run.glob("workers/*") if path.name.isdigit()}
    found = {worker: _lines(home / FILE) for worker, home in sorted(homes.items())}
    if not any(found.values()):
        raise InputError(
            f"{run}: no ledger in it", f"a run folder with workers/0/{FILE}",
            "check the path, and run with runtime.ledger = true",
        )  # fmt: skip
    return found


def _lines(file: Path) -> list[Event]:
    if not file.exists():
        return []
    *lines, _unfinished = file.read_text().split("\n")  # a worker may have died while it wrote
    try:
        return [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: {error}", "the lines of a ledger") from None
