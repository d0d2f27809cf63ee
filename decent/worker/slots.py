"""The state of one worker: S slots of d values, in chunks that drift each on its own clock.

Row 0 of the array is the live parameters. The others are kept in the system's relative basis
(`System.basis`), in which a gradient step touches row 0 alone: w_s = slot_s − (k_s/k_0)·slot_0.
So an optimizer may write row 0 in place, whenever it likes, and nothing else has to follow.

For chunk c brought from local time t₀ under system P to time t under system Q the whole work is
one small matrix, T_Q · exp(A_P (t − t₀)) · T_P⁻¹, applied to the S rows of the chunk in cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import numpy as np

from decent.dynamics import System
from decent.errors import ModelError

Array = np.ndarray[Any, Any]


TAME = 1e-3
"""coefficients from this to its inverse: scaled by them, single precision keeps its range"""


class Overwritten(Exception):
    """A payload in shared memory is no longer what was sent: it will be asked for again."""


class Slots:
    """`array` (S, d), float32 or float64, changed in place; given in the papers' own slots, it is
    brought into the relative basis here.

    `guard` is entered around every change, one chunk at a time: the optimizer's turn.
    """

    def __init__(
        self,
        array: Array,
        system: System,
        chunk: int,
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        if array.ndim != 2 or len(array) != len(system.slots) or not array.size:
            raise ModelError(
                f"a state of shape {array.shape}",
                f"({len(system.slots)}, d) with d ≥ 1, for slots {', '.join(system.slots)}",
            )
        _relate(array, system)
        self.array, self.chunk, self.system = array, chunk, system
        self.values = int(array.shape[1])
        self.chunks = -(-self.values // chunk)
        self._scaled = np.empty(min(chunk, self.values), array.dtype)
        self._most = math.sqrt(np.finfo(array.dtype).max)  # what may be added: its square is finite
        self._guard = nullcontext() if guard is None else guard
        self._systems = [system] * self.chunks
        self._times = [0.0] * self.chunks
        self._resting = [not array[1:].any()] * self.chunks

    def span(self, chunk: int) -> slice:
        return slice(chunk * self.chunk, min(self.values, (chunk + 1) * self.chunk))

    def stale(self, time: float, age: float) -> list[int]:
        """Chunks that have not drifted for `age` and would change if they did."""
        return [
            chunk
            for chunk in range(self.chunks)
            if time - self._times[chunk] >= age and self._moves(chunk, self._systems[chunk])
        ]

    def refresh(self, time: float) -> None:
        """Bring every chunk to local `time`."""
        for chunk in range(self.chunks):
            self.drift(chunk, time)

    def drift(self, chunk: int, time: float) -> None:
        with self._guard:
            self._drift(chunk, time)

    def snapshot(self, chunk: int, time: float, out: Array | None = None) -> Array:
        """A copy of what an exchange sends of this chunk, at `time`; in `out` if that is given."""
        with self._guard:
            self._drift(chunk, time)
            return self._message(chunk, out)

    @property
    def plain_message(self) -> bool:
        """Whether an exchange sends the live vector itself."""
        first, *others = self.system.relative.message
        return bool(first == 1) and not any(others)

    def meet(
        self,
        chunk: int,
        time: float,
        theirs: Array,
        mix: Array,
        out: Array,
        intact: Callable[[], bool] = lambda: True,
    ) -> float | None:
        """`add` of what a peer's message differs from ours by, which is put into `out`."""
        with self._guard:
            self._drift(chunk, time)
            ours = self.array[0, self.span(chunk)]
            if not self.plain_message:
                ours = self._message(chunk, None)
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(theirs, ours, out=out)
            return self._mix(chunk, out, mix, intact)

    def add(
        self,
        chunk: int,
        time: float,
        difference: Array,
        mix: Array,
        intact: Callable[[], bool] = lambda: True,
        sign: float = 1.0,
    ) -> float | None:
        """Add `mix[s]·sign·difference` to slot s (plain coefficients). Returns ‖difference‖²; None,
        with nothing changed, if that or what would be added is not finite. Raises Overwritten, and
        changes nothing, if the difference is not `intact` any more when it has been read."""
        with self._guard:
            self._drift(chunk, time)
            return self._mix(chunk, difference, mix, intact, sign)

    def plain(self) -> Array:
        """A copy of the state in the papers' own slots."""
        result = self.array.copy()
        for chunk, system in enumerate(self._systems):
            inverse = np.linalg.inv(system.basis).astype(result.dtype)
            result[:, self.span(chunk)] = inverse @ self.array[:, self.span(chunk)]
        return result

    def live(self, chunk: int, time: float) -> Array:
        """A copy of this chunk of the parameters, at `time`."""
        with self._guard:
            self._drift(chunk, time)
            return self.array[0, self.span(chunk)].copy()

    def begin(self, state: Array, time: float) -> None:
        """Begin anew at `time`, with a state in the papers' own slots."""
        with self._guard:
            self.array[:] = state
            _relate(self.array, self.system)
        self._systems, self._times = [self.system] * self.chunks, [time] * self.chunks
        self._resting = [not self.array[1:].any()] * self.chunks

    def state(self) -> dict[str, Any]:
        """What `restore` needs; arrays are the live ones."""
        systems = list({id(each): each for each in [*self._systems, self.system]}.values())
        return {
            "array": self.array, "times": self._times, "resting": self._resting,
            "systems": [_constants(each) for each in systems],
            "which": [systems.index(each) for each in [*self._systems, self.system]],
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up what was kept of slots of the same shape."""
        systems = [System(**{**each, "slots": tuple(each["slots"])}) for each in state["systems"]]
        *self._systems, self.system = (systems[k] for k in state["which"])
        self._times, self._resting = list(state["times"]), list(state["resting"])
        with self._guard:
            self.array[:] = state["array"]

    def _moves(self, chunk: int, system: System) -> bool:
        """False while only row 0 is not zero and the flow leaves it alone."""
        return not self._resting[chunk] or bool(system.relative.flow[:, 0].any())

    def _drift(self, chunk: int, time: float) -> None:
        old, new = self._systems[chunk], self.system
        elapsed = time - self._times[chunk]
        self._times[chunk] = max(time, self._times[chunk])
        self._systems[chunk] = new
        rebased = old is not new and not np.array_equal(old.basis, new.basis)
        if not rebased and (elapsed <= 0 or not self._moves(chunk, old)):
            return
        matrix = old.relative.propagator(max(0.0, elapsed))
        if rebased:
            matrix = new.basis @ np.linalg.inv(old.basis) @ matrix
            self._resting[chunk] = False
        self._apply(chunk, matrix - np.eye(len(matrix)))

    def _apply(self, chunk: int, change: Array) -> None:
        """rows += change @ rows, touching only what changes."""
        rows = self.array[:, self.span(chunk)]
        sums = [_combine(row, rows) for row in change]
        for row, extra in zip(rows, sums, strict=True):
            if extra is not None:
                row += extra

    def _message(self, chunk: int, out: Array | None) -> Array:
        rows = self.array[:, self.span(chunk)]
        if out is not None and self.plain_message:
            np.copyto(out, rows[0])
            return out
        message = _combine(self.system.relative.message, rows)
        assert message is not None  # a system that sends nothing is refused when built
        return message

    def _mix(
        self,
        chunk: int,
        difference: Array,
        mix: Array,
        intact: Callable[[], bool] = lambda: True,
        sign: float = 1.0,
    ) -> float | None:
        coefficients = self.system.basis @ mix
        slots = np.argsort(-np.abs(coefficients))  # the largest first: no ratio overflows
        largest = float(coefficients[slots[0]])
        scale = largest if TAME < abs(largest) < 1 / TAME else 1.0
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = np.multiply(difference, sign * scale, out=self._scaled[: difference.size])
            if not intact():  # from here on it is not read again
                raise Overwritten
            size = math.sqrt(float(np.dot(scaled, scaled))) / abs(scale)
        if not size * max(1.0, abs(largest)) < self._most:
            return None
        self._note(chunk, scaled, scale, size, mix)
        rows = self.array[:, self.span(chunk)]
        for slot in slots:
            if coefficients[slot]:
                if coefficients[slot] != scale:
                    scaled *= float(coefficients[slot]) / scale
                    scale = float(coefficients[slot])
                rows[slot] += scaled
                self._resting[chunk] &= slot == 0
        return size * size

    def _note(self, chunk: int, scaled: Array, scale: float, size: float, mix: Array) -> None:
        """What is about to be mixed: scaled/scale, with these coefficients. For the ledger."""


def _relate(array: Array, system: System) -> None:
    """From the papers' slots into the relative basis."""
    for row, share in zip(array[1:], system.basis[1:, 0], strict=True):
        if share:
            row += float(share) * array[0]


def _constants(system: System) -> dict[str, Any]:
    """As plain values."""
    values = {each.name: getattr(system, each.name) for each in fields(system)}
    return {name: np.asarray(value).tolist() for name, value in values.items()}


def _combine(coefficients: Array, rows: Array) -> Array | None:
    """Σ coefficients[s]·rows[s] as a new array; None where all coefficients are 0."""
    total: Array | None = None
    for coefficient, row in zip(coefficients, rows, strict=True):
        if coefficient:
            term = row.copy() if coefficient == 1 else float(coefficient) * row
            total = term if total is None else np.add(total, term, out=total)
    return total
