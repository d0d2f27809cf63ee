"""A linear system with jumps: what every asynchronous method here is, whatever its constants.

A worker holds S named slots, each a flat vector of length d, stacked as `state[S, d]`. Time is
counted in units of the expected duration of one local gradient step. Between events the state
drifts, and two kinds of event make it jump:

    drift over Δt      state ← expm(A·Δt) @ state
    gradient           res = ∇f(e @ state) + r @ state;   slot_s ← slot_s + k_s · res
    exchange with j    diff = m @ state_i − m @ state_j;  slot_s ← slot_s − b_s · diff at i, + at j

An exchange sends one vector, m @ state, whatever S is, and leaves Σ_i state_i as it was, for every
slot and any constants. The form generalises eq. 3 of DADAO (Nabli & Oyallon, ICML 2023). The
functions below are its definition, plain and in place; faster code is tested against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decent.errors import DynamicsError

Array = NDArray[np.float64]
State = NDArray[np.floating[Any]]

_TAYLOR = 18  # 1/19! is below the rounding of float64
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, eq=False)
class System:
    """The constants of the equations above, checked and read-only. S = len(slots)."""

    slots: tuple[str, ...]
    flow: Array  # A [S, S]
    probe: Array  # e [S]
    residual: Array  # r [S]
    kick: Array  # k [S]
    message: Array  # m [S]
    mix: Array  # b [S]

    def __post_init__(self) -> None:
        size = len(self.slots)
        if size == 0 or len(set(self.slots)) < size:
            raise DynamicsError(f"slots {self.slots!r}", "at least one name, each once")
        object.__setattr__(self, "flow", _constant("flow", self.flow, (size, size)))
        for name in ("probe", "residual", "kick", "message", "mix"):
            object.__setattr__(self, name, _constant(name, getattr(self, name), (size,)))
        if not np.isfinite(self._shear).all():
            raise DynamicsError(
                f"kick {self.kick.tolist()}",
                "a first entry that is not 0, nor negligible, where any other is not 0",
                "name the slot at which the gradient is taken first",
            )

    @cached_property
    def _shear(self) -> Array:
        """[S, S]: column 0 holds k_s / k_0 for s ≥ 1; all else is 0."""
        shear = np.zeros_like(self.flow)
        if self.kick.any():
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                shear[1:, 0] = self.kick[1:] / self.kick[0]
        return shear

    @cached_property
    def basis(self) -> Array:
        """T [S, S]: the coordinates w_0 = slot_0, w_s = slot_s − (k_s/k_0)·slot_0, in which a
        gradient touches slot 0 alone, so that the other slots need not know of it."""
        return _frozen(np.eye(len(self.slots)) - self._shear)

    @cached_property
    def inverse(self) -> Array:
        """T⁻¹ [S, S]: from the coordinates of `basis` to the slots."""
        return _frozen(np.eye(len(self.slots)) + self._shear)

    @cached_property
    def relative(self) -> System:
        """The same system in the coordinates of `basis`: it does to T @ state what this does to
        state, and its own basis is the identity."""
        identity, inverse = np.eye(len(self.slots)), self.inverse
        return System(
            self.slots,
            flow=self.basis @ self.flow @ inverse,
            probe=self.probe @ inverse,
            residual=self.residual @ inverse,
            kick=self.kick * identity[0],
            message=self.message @ inverse,
            mix=self.basis @ self.mix,
        )

    def propagator(self, dt: float) -> Array:
        """[S, S]: expm(A·dt), what `dt` units of time do to the state."""
        if not 0 <= dt < math.inf:
            raise DynamicsError(f"a drift over {dt!r} units of time", "a finite time ≥ 0")
        return _exponential(self.flow * dt)

    def drift(self, state: State, dt: float) -> None:
        """Let `dt` units of time pass for `state[S, d]`."""
        state[:] = self.propagator(dt) @ state

    def gradient_point(self, state: State) -> Array:
        """[d]: the parameters at which the gradient is taken."""
        return self.probe @ state

    def kick_by(self, state: State, gradient: State) -> None:
        """Apply a gradient event to `state[S, d]`: `gradient[d]` was taken at its probe."""
        state += np.outer(self.kick, gradient + self.residual @ state)


def exchange(system: System, state_i: State, state_j: State) -> None:
    """Apply an exchange at both ends, from the same two snapshots."""
    step = np.outer(system.mix, system.message @ state_i - system.message @ state_j)
    state_i -= step
    state_j += step


def conserved(flow: Array, among: Array | None = None) -> Array:
    """[C, S]: all combinations ℓ of slots that a drift by `flow` leaves alone, ℓᵀA = 0, as far as
    they are combinations of the rows of `among`. Reduced to echelon form, so that equal spaces have
    equal rows; the entries of a row are 1 in all."""
    rows = np.eye(len(flow)) if among is None else among
    sizes = np.abs(flow).max(axis=0)
    return _silent(rows, rows @ (flow / np.where(sizes > 0, sizes, 1.0)))


def common(one: Array, other: Array) -> Array:
    """[C, S]: all combinations of slots that are combinations of the rows of both."""
    return _silent(one, one - one @ np.linalg.pinv(other) @ other)


def _silent(rows: Array, effects: Array) -> Array:
    """The combinations of `rows` of which the same combination of `effects` is 0."""
    left, sizes, _ = np.linalg.svd(effects)
    rank = int((sizes > _NEGLIGIBLE).sum())
    return _echelon(left[:, rank:].T @ rows)


def _echelon(rows: Array) -> Array:
    rows, done = rows.copy(), 0
    for column in range(rows.shape[1]):
        if done == len(rows):
            break
        pivot = done + int(np.abs(rows[done:, column]).argmax())
        if abs(rows[pivot, column]) > _NEGLIGIBLE:
            rows[[done, pivot]] = rows[[pivot, done]]
            rows[done] /= rows[done, column]
            others = np.arange(len(rows)) != done
            rows[others] -= np.outer(rows[others, column], rows[done])
            done += 1
    rows[np.abs(rows) < _NEGLIGIBLE] = 0.0
    return np.asarray(rows / np.abs(rows).sum(axis=1, keepdims=True))


def _exponential(matrix: Array) -> Array:
    """expm by scaling and squaring: exp(M/2ⁿ)^(2ⁿ), Taylor's series where |M/2ⁿ| < 1."""
    identity = np.eye(len(matrix))
    norm = float(np.abs(matrix).sum(axis=0).max())
    if norm == 0:
        return identity
    halvings = max(0, math.frexp(norm)[1])
    small, power = matrix / 2.0**halvings, identity
    for order in range(_TAYLOR, 0, -1):
        power = identity + small @ power / order
    for _ in range(halvings):
        power = power @ power
    return power


def _constant(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A read-only copy of `value`, which must be finite and of `shape`."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DynamicsError(f"{name} {value!r}", "numbers") from error
    if array.shape != shape:
        raise DynamicsError(f"{name} of shape {array.shape}", f"shape {shape}, one row per slot")
    if not np.isfinite(array).all():
        raise DynamicsError(f"{name} {array.tolist()}", "finite numbers")
    return _frozen(array)


def _frozen(array: Array) -> Array:
    array.setflags(write=False)
    return array
