"""Balances the ledgers of a run: is all that happened to the state accounted for?

    edge      both ends of an exchange mixed the same difference: d_i + d_j = 0, for each chunk
    worker    held = expected, for each slot, from one balance to the next
    lines     ℓᵀ(expected − opening − steps) = ℓᵀ Σ b·d over the exchanges, ℓᵀA = 0: drift is silent
    merge     the mean is that of what was put in
    total     Σ_i ℓᵀ(state_i − state_i at the start − steps_i) = 0, over the workers that closed

each for every probe (see `probes`), up to rounding: an event rounds each value to eps of itself, so
a sum over d of them with random signs is off by eps·√d·scale = eps·‖slot‖ at most each time, and
the bound is SLACK times that, times the events between two balances. Between two ends it is
SLACK·eps·‖d‖, as they add up the same numbers in another order.

What is settled by rule is no error: a chunk that its starter gave up in flight counts as not mixed
there, whatever the peer did; of a worker that died nothing is expected. Both are left out of the
total, and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np

from decent.dynamics import common
from decent.worker.books import Book, End, Event, Half, Key, Period, books
from decent.worker.probes import Array, Sums

SLACK = 16.0


@dataclass
class Culprit:
    """What does not balance, in words, and where."""

    what: str
    s: float
    off: float
    bound: float
    workers: list[int]
    exchange: Key | None = None


@dataclass
class Settled:
    """A chunk that one end alone mixed, by rule."""

    exchange: Key
    s: float
    moved: float
    why: str


@dataclass
class Edge:
    """An edge's exchanges: `most` is the largest |d|, `off` the largest |d_i + d_j|."""

    workers: tuple[int, int]
    exchanges: int = 0
    chunks: int = 0
    one_sided: int = 0
    most: float = 0.0
    off: float = 0.0
    bound: float = 0.0

    @property
    def ratio(self) -> float:
        return self.off / self.bound if self.bound else 0.0


@dataclass
class Report:
    """What an audit has found."""

    known: list[int]  # workers
    closed: list[int]
    steps: int
    combinations: list[str]  # those of the slots that are conserved
    off: float = 0.0  # of the total
    bound: float = 0.0
    edges: list[Edge] = field(default_factory=list)  # worst first
    settled: list[Settled] = field(default_factory=list)
    culprits: list[Culprit] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        return not self.culprits

    @property
    def unclosed(self) -> list[int]:
        """Workers that have died, or were cut off."""
        return sorted({*self.known} - {*self.closed})


def audit(lines: Mapping[int, Iterable[Event]]) -> Report:
    """Balance the ledgers; `lines` by worker."""
    found = books(lines)
    among = [book for book in found.values() if book.periods]
    combinations = _common([book.periods[-1].conserved for book in among])
    report = Report(
        known=sorted(lines),
        closed=[book.worker for book in found.values() if book.closed],
        steps=sum(book.periods[-1].last_step - book.first_step for book in among),
        combinations=[_name(row, among[0].slots) for row in combinations],
    )
    _edges(found, report)
    for book in among:
        report.culprits += _periods(book)
    report.culprits += _merges(found)
    report.culprits.sort(key=lambda culprit: culprit.s)
    _total(found, combinations, report)
    return report


def _common(spaces: list[Array]) -> Array:
    """The combinations that are in all of these spaces, one a row."""
    return reduce(common, spaces) if spaces else np.zeros((0, 1))


def _name(row: Array, slots: tuple[str, ...]) -> str:
    """Such as "0.5 x + 0.5 x̃"."""
    terms = [(float(f"{c:.3g}"), slot) for c, slot in zip(row, slots, strict=True) if c]
    return " + ".join(slot if c == 1 else f"{c:g} {slot}" for c, slot in terms)


def _most(values: Any) -> float:
    """The largest magnitude; 0 of nothing."""
    return float(np.abs(values).max(initial=0.0))


# edges


def _edges(found: dict[End, Book], report: Report) -> None:
    edges: dict[tuple[int, int], Edge] = {}
    seen: set[tuple[Any, ...]] = set()
    for key in dict.fromkeys(key for book in found.values() for key in book.halves):
        edge = edges.setdefault(key.edge, Edge(key.edge))
        edge.exchanges += key[:4] not in seen
        seen.add(key[:4])
        edge.chunks += 1
        _chunk(key, found, edge, report)
    report.edges = sorted(edges.values(), key=lambda edge: (-edge.ratio, edge.workers))


def _chunk(key: Key, found: dict[End, Book], edge: Edge, report: Report) -> None:
    ends = [found[end] for end in key.ends if end in found]
    halves = {book.worker: book.halves[key] for book in ends if key in book.halves}
    moved = [half.moved for half in halves.values()]
    edge.most = max(edge.most, _most(moved))
    why = _excuse(key, found) if len(halves) == 1 else ""
    first = next(iter(halves.values()))
    if why:
        edge.one_sided += 1
        report.settled.append(Settled(key, first.s, _most(moved), why))
        return
    off = _most(np.sum(moved, axis=0))
    eps = max(book.eps for book in ends)
    bound = SLACK * eps * max(half.size for half in halves.values())
    if not edge.bound or off * edge.bound > edge.off * bound:
        edge.off, edge.bound = off, bound
    if not off <= bound or len(halves) == 1:
        what = f"{key}: {_disagreement(key, halves)}"
        report.culprits.append(Culprit(what, first.s, off, bound, list(key[:2]), key))


def _excuse(key: Key, found: dict[End, Book]) -> str:
    """Why it is right that one end alone has mixed this chunk; empty if it is not."""
    starter = found.get(key.ends[0])
    if starter is not None and key in starter.in_flight:
        return f"given up in flight by worker {key.starter}: {starter.in_flight[key]}"
    unclosed = [end for end in key.ends if end not in found or not found[end].closed]
    return f"worker {unclosed[0][0]} has not closed its books" if unclosed else ""


def _disagreement(key: Key, halves: dict[int, Half]) -> str:
    """In words, from the point of view of the end that did less."""
    if len(halves) == 1:
        [there] = halves
        [here] = {*key[:2]} - {there}
        return f"mixed at worker {there}, and not at worker {here}"
    less, more = sorted(halves, key=lambda me: _most(halves[me].moved))
    ours, theirs = halves[less].moved, halves[more].moved
    if not ours.any():
        return f"mixed at worker {more}, and without effect at worker {less}"
    if np.allclose(theirs, -2 * ours, rtol=1e-6):
        return f"mixed twice at worker {more}"
    return f"the ends mixed different values: {ours} at worker {less}, {theirs} at worker {more}"


# workers


def _periods(book: Book) -> Iterator[Culprit]:
    for period in book.periods:
        worst = period.worst
        off, bound = _most(worst["off"]), _bound(book, worst["size"], worst["events"])
        where = (
            f"worker {book.worker}, steps {period.first_step}–{period.last_step} "
            f"({period.start_s:.6g}–{period.end_s:.6g} s)"
        )
        if not off <= bound:
            what = f"{where}, chunk {worst['chunk']}: {_cause(period, bound)}"
            yield Culprit(what, period.end_s, off, bound, [book.worker])
        moved = period.expected - period.opening - period.steps
        off = _most(period.conserved @ (moved - _brought(period.halves.values(), moved)))
        bound = _bound(book, period.size, period.events)
        if not off <= bound:
            what = f"{where}: its slots have moved by what no exchange in its ledger says"
            yield Culprit(what, period.end_s, off, bound, [book.worker])


def _bound(book: Book, size: float, events: int) -> float:
    return SLACK * book.eps * size * (events + 1)


def _brought(halves: Iterable[Half], like: Sums) -> Sums:
    """[S, PROBES]: what these have brought to the slots in all."""
    return sum((half.brought for half in halves), np.zeros_like(like))


def _cause(period: Period, bound: float) -> str:
    """In words; if one exchange would explain it, which."""
    off = period.conserved @ np.array(period.worst["off"])
    if not np.isfinite(period.worst["off"]).all():
        return "its state is not finite"
    for key, half in period.halves.items():
        brought = period.conserved @ half.brought
        near = bound + 1e-3 * _most(brought)
        if key.chunk != period.worst["chunk"] or _most(brought) <= 2 * bound:
            continue
        if _most(off + brought) < near:
            return f"what {key} brought was entered, and not applied"
        if _most(off - brought) < near:
            return f"what {key} brought was applied twice"
    return "its state was changed by neither steps, exchanges nor drift"


# the merge and the total


def _merges(found: dict[End, Book]) -> Iterator[Culprit]:
    """Each merge against the mean of what was put in; if one of those merged has left no word of
    it, against one another."""
    told = {book.worker: book.merge for book in found.values() if book.merge is not None}
    for among in sorted({tuple(each["among"]) for each in told.values()}):
        inside = {me: each for me, each in told.items() if tuple(each["among"]) == among}
        parts = list(inside.values())
        weights = [each["weight"] for each in parts] if len(parts) == len(among) else None
        values = [each["before" if weights else "after"] for each in parts]
        mean = np.average(values, axis=0, weights=weights)
        eps = max(book.eps for book in found.values())
        bound = SLACK * eps * max(each["size"] for each in parts) * (len(among) + 1)
        for me, each in inside.items():
            off = _most(np.array(each["after"]) - mean)
            if not off <= bound:
                what = f"worker {me}: its merge is not the mean of what {len(among)} workers put in"
                yield Culprit(what, each["s"], off, bound, [me])


def _total(found: dict[End, Book], combinations: Array, report: Report) -> None:
    """The whole, over those who closed their books and as far as they have to do with one another;
    what is off there and nowhere else is a culprit too."""
    closed = {end: book for end, book in found.items() if book.closed}
    excused = {each.exchange for each in report.settled}
    total, bound, end_s = 0.0, 0.0, 0.0
    for book in closed.values():
        first, last = book.periods[0], book.periods[-1]
        end_s = max(end_s, last.end_s)
        steps = np.sum([period.steps for period in book.periods], axis=0)
        outside = [
            half
            for period in book.periods
            for key, half in period.halves.items()
            if key in excused or not closed.keys() >= {*key.ends}
        ]
        moved = last.held - first.opening - steps
        total = total + combinations @ (moved - _brought(outside, moved))
        bound += sum(_bound(book, period.size, period.events) for period in book.periods)
    report.off, report.bound = _most(total), bound
    if not report.off <= bound and not report.culprits:
        what = "the whole: the workers' states do not add up to the start and the local steps"
        report.culprits.append(Culprit(what, end_s, report.off, bound, report.closed))
