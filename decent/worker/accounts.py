"""Slots that keep account of what happens to them, in a few random directions.

For a probe p and a chunk c the sums ⟨p, slot_s[c]⟩ obey the equations of the state itself, since
these are linear:

    local step      row 0 moves by ⟨p, x_after − x_before⟩, measured in the optimizer's turn
    exchange        slot s moves by b[s]·⟨p, m_peer − m_own⟩
    drift, rebase   the same small matrix that is applied to the rows

so what is *expected* is known in double precision without looking at the state, whatever the
constants were meanwhile, and can be compared with what is *held*. Kept in the slots' own relative
basis; told in the papers' slots.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from decent.dynamics import System, conserved
from decent.worker.probes import PROBES, Array, Probes, Sums
from decent.worker.slots import Slots

Kept = dict[int, int]
"""chunk → how many of its values, the first, are in account"""


class Strides:
    """Measures what an optimizer does to the live `vector`, in its turn, as a context manager.

    `totals` [len(kept), PROBES] takes up ⟨p, x_after − x_before⟩, chunk by chunk of `kept`.
    """

    def __init__(
        self, vector: Array, chunk: int, kept: Kept, probes: Probes, totals: Array
    ) -> None:
        self._products = [
            probes.on(each, vector[each * chunk :][:length]) for each, length in kept.items()
        ]
        self._totals = totals
        self._before: list[Sums] | None = None

    def __enter__(self) -> None:
        if self._before is None:  # else the last turn was broken off, and goes on
            self._before = self._measure()

    def __exit__(self, *_: object) -> None:
        """Also of a turn that never began."""
        if self._before is not None:
            pairs = zip(self._measure(), self._before, strict=True)
            for total, (after, before) in zip(self._totals, pairs, strict=True):
                total += after - before
            self._before = None

    def _measure(self) -> list[Sums]:
        return [product() for product in self._products]


@dataclass
class Account:
    """One chunk's: sums over its first values, for each slot and probe, since the last balance."""

    length: int
    row: int  # of the totals of the strides
    seen: Sums  # [PROBES]: those already taken up
    expected: Sums  # [S, PROBES], in the relative basis
    steps: Sums  # [S, PROBES], in the papers' slots
    size: float  # the largest norm of a slot, in the papers' slots
    events: int = 0  # drifts and exchanges


class Mixed(NamedTuple):
    """What an exchange brought to a chunk."""

    moved: Sums  # [PROBES]: ⟨p, m_peer − m_own⟩
    size: float  # ‖m_peer − m_own‖
    mix: tuple[float, ...]  # b
    kept: Sums | None = None  # the same as `moved` for the part in account, if that is another


@dataclass
class Balance:
    """Sums over the chunks in account, [S, PROBES] in the papers' slots, since the last balance."""

    steps: Sums
    expected: Sums
    held: Sums
    size: float = 0.0
    events: int = 0
    worst: dict[str, Any] = field(default_factory=dict)  # the chunk that is furthest off


class Accounts(Slots):
    """As `Slots`, and keeps account of what is in `kept`. `stepped` are the totals of `Strides`,
    which may be in another process: they are read and written in the guard's turn alone."""

    def __init__(
        self,
        array: Array,
        system: System,
        chunk: int,
        guard: AbstractContextManager[object] | None,
        probes: Probes,
        kept: Kept,
        stepped: Array,
    ) -> None:
        super().__init__(array, system, chunk, guard)
        self.conserved = conserved(system.flow)  # by every flow so far
        self.mixed: dict[int, Mixed] = {}  # chunk → the last exchange's, until it is entered
        self.kept = kept
        self._probes, self._stepped, self._known = probes, stepped, system
        self._accounts: dict[int, Account] = {}
        for row, (each, length) in enumerate(kept.items()):
            self._open(row, each, length)

    def balance(self) -> Balance:
        """Compare what is held with what is expected, and go on from what is held."""
        zeros = np.zeros((3, len(self.array), PROBES))
        total, furthest = Balance(*zeros), -1.0
        for chunk, account in self._accounts.items():
            with self._guard:
                expected, held, size = self._close(chunk, account)
            total.steps += account.steps
            total.expected += expected
            total.held += held
            total.size = float(np.hypot(total.size, size))
            total.events = max(total.events, account.events)
            off = held - expected
            distance = float(np.abs(off).max() / (size * (account.events + 1) or 1.0))
            if not distance <= furthest:
                furthest = distance
                total.worst = {
                    "chunk": chunk, "off": off.tolist(), "size": size, "events": account.events
                }  # fmt: skip
            account.steps, account.events = np.zeros_like(account.steps), 0
        return total

    def state(self) -> dict[str, Any]:
        names = ("seen", "expected", "steps", "size", "events")
        return super().state() | {
            "accounts": {
                chunk: {name: getattr(account, name) for name in names}
                for chunk, account in self._accounts.items()
            },
            "stepped": self._stepped, "conserved": self.conserved,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._known, self.conserved = self.system, state["conserved"]
        self._stepped[:] = state["stepped"]
        for chunk, kept in state["accounts"].items():
            for name, value in kept.items():
                setattr(self._accounts[chunk], name, value)

    def reopen(self) -> None:
        """Go on from what is held, whatever it was before."""
        for row, (chunk, length) in enumerate(self.kept.items()):
            with self._guard:
                self._open(row, chunk, length)

    def _open(self, row: int, chunk: int, length: int) -> None:
        held, size = self._measure(chunk, length)
        seen, steps = self._stepped[row].copy(), np.zeros_like(held)
        self._accounts[chunk] = Account(length, row, seen, held, steps, size)

    def _close(self, chunk: int, account: Account) -> tuple[Sums, Sums, float]:
        """What was expected and what is held, in the papers' slots; the largest size meanwhile."""
        self._absorb(chunk)
        plain = self._systems[chunk].inverse
        expected, before = account.expected, account.size
        account.expected, account.size = self._measure(chunk, account.length)
        return plain @ expected, plain @ account.expected, max(before, account.size)

    def _measure(self, chunk: int, length: int) -> tuple[Sums, float]:
        rows = self.array[:, self.span(chunk)][:, :length]
        held = np.stack([self._probes(chunk, row) for row in rows])
        norms = [float(np.linalg.norm(row)) for row in rows]
        return held, float(np.max(np.abs(self._systems[chunk].inverse) @ norms))

    def _absorb(self, chunk: int) -> None:
        """Take up the local steps since the last time: before anything else moves the chunk."""
        account = self._accounts.get(chunk)
        if account is not None:
            step = self._stepped[account.row] - account.seen
            if step.any():
                account.seen += step
                account.expected[0] += step
                account.steps += np.outer(self._systems[chunk].inverse[:, 0], step)

    def _drift(self, chunk: int, time: float) -> None:
        if self._known is not self.system:
            self._known = self.system
            self.conserved = conserved(self.system.flow, self.conserved)
        self._absorb(chunk)
        super()._drift(chunk, time)

    def _apply(self, chunk: int, change: Array) -> None:
        super()._apply(chunk, change)
        account = self._accounts.get(chunk)
        if account is not None:
            account.expected += change @ account.expected
            account.events += 1

    def _note(self, chunk: int, scaled: Array, scale: float, size: float, mix: Array) -> None:
        account, kept = self._accounts.get(chunk), None
        moved = self._probes(chunk, scaled) / scale
        if account is not None:
            if account.length < scaled.size:
                kept = self._probes(chunk, scaled[: account.length]) / scale
            account.expected += np.outer(self.system.basis @ mix, moved if kept is None else kept)
            account.events += 1
        self.mixed[chunk] = Mixed(moved, size, tuple(map(float, mix)), kept)
