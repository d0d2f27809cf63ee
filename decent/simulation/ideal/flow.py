"""Drift in closed form, for many workers and elapsed times at once.

With A = V·D·V⁻¹ in real terms, D has a real eigenvalue a in a place of its own, or a block
[[a, b], [−b, a]] for a pair a ± ib, and expm(A·Δt) = V·expm(D·Δt)·V⁻¹ with e^(aΔt), cos(bΔt) and
sin(bΔt). The engine keeps its state in coordinates T @ state, and there are two kinds:

    Modes      T = V⁻¹: drift is a product and a rotation, value by value; jumps touch all slots
    Relative   T = System.basis: a gradient touches slot 0 alone, drift is a matrix [k, S, S]

Modes are for short vectors, where matrices would be most of the work. Where A has no eigenvectors
to speak of, the exponential of each A·Δt is taken, in relative coordinates.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.dynamics import System

Floats = NDArray[np.float64]
ACCURACY, SKEWED = 1e-11, 1e6
EQUAL = 1e-13  # of eigenvalues: what rounding may part


class Spectrum:
    """V [S, S], its inverse, and each place's a [S] and b [S] (of a pair: b, then −b)."""

    def __init__(self, flow: Floats) -> None:
        values, vectors = _eigen(flow)
        columns, decay, turn, partner = list[Floats](), list[float](), list[float](), list[int]()
        for value, vector in zip(values, vectors.T, strict=True):
            place = len(columns)
            if value.imag > 0:
                columns += [vector.real, vector.imag]
                decay += [value.real] * 2
                turn += [value.imag, -value.imag]
                partner += [place + 1, place]
            elif value.imag == 0:
                columns.append(vector.real)
                decay.append(value.real)
                turn.append(0.0)
                partner.append(place)
        if (size := len(flow)) != len(columns):  # rounding has parted a pair: no closed form
            columns = list(np.full((size, size), np.nan))
            decay, turn, partner = [0.0] * size, [0.0] * size, list(range(size))
        self.vectors = np.array(columns).T
        self.decay, self.turn, self.partner = np.array(decay), np.array(turn), np.array(partner)
        with np.errstate(all="ignore"):
            try:
                self.inverse = np.linalg.inv(self.vectors)
            except np.linalg.LinAlgError:
                self.inverse = np.full_like(self.vectors, np.nan)

    @property
    def skew(self) -> float:
        """How far from orthogonal the vectors are: what rounding grows by."""
        return float(np.linalg.cond(np.nan_to_num(self.vectors)))

    def waves(self, elapsed: Floats) -> tuple[Tensor, Tensor | None]:
        """What each place keeps of itself, and gets of its partner: [k, S] both."""
        times = torch.from_numpy(elapsed)  # torch's are the faster functions
        own = torch.ones(len(elapsed), len(self.decay), dtype=torch.float64)
        other = torch.zeros_like(own) if self.turn.any() else None
        for place, (decay, turn) in enumerate(zip(self.decay, self.turn, strict=True)):
            if decay and turn >= 0:  # the other of a pair has the same
                own[:, place] = torch.exp(decay * times)
            if other is not None and turn > 0:
                angle, fade, partner = turn * times, own[:, place], self.partner[place]
                other[:, place] = fade * torch.sin(angle)
                other[:, partner] = -other[:, place]
                own[:, place] *= torch.cos(angle)
                own[:, partner] = own[:, place]
        return own, other

    def matrices(self, elapsed: Floats) -> Tensor:
        """expm(A·Δt) [k, S, S]."""
        own, other = self.waves(elapsed)
        size = len(self.decay)
        kept = np.einsum("is,sj->sij", self.vectors, self.inverse).reshape(size, -1)
        found = own @ torch.from_numpy(kept)
        if other is not None:
            swapped = np.einsum("is,sj->sij", self.vectors, self.inverse[self.partner])
            found += other @ torch.from_numpy(swapped.reshape(size, -1))
        return found.reshape(-1, size, size)

    def accurate(self, system: System) -> bool:
        """Whether this agrees with the exponential over the time scales that the flow has."""
        scale = 1 / max(np.abs(system.flow).max(), 1e-300)
        for time in scale * np.array([0.0, 1e-3, 1.0, 30.0]):
            exact = system.propagator(float(time))
            error = np.abs(self.matrices(np.array([time]))[0].numpy() - exact).max()
            if not error <= ACCURACY * max(1.0, np.abs(exact).max()):
                return False
        return True


class Drift(ABC):
    """Coordinates T [S, S], and what drift is in them."""

    basis: NDArray[np.floating]
    still: bool

    @abstractmethod
    def coefficients(self, elapsed: Floats) -> list[Tensor]:
        """What `apply` takes, with a row for each of `elapsed` [k] ≥ 0."""

    @abstractmethod
    def apply(self, rows: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
        """`rows` [k, S, d], each drifted by its own time; may be the same tensor."""


class Modes(Drift):
    """In the flow's own coordinates."""

    def __init__(self, spectrum: Spectrum) -> None:
        self.basis, self.still, self._spectrum = spectrum.inverse, False, spectrum
        self._partner = torch.from_numpy(spectrum.partner)

    def coefficients(self, elapsed: Floats) -> list[Tensor]:
        return [each[:, :, None] for each in self._spectrum.waves(elapsed) if each is not None]

    def apply(self, rows: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
        if len(coefficients) == 1:
            return rows.mul_(coefficients[0])
        partners = rows.index_select(1, self._partner.to(rows.device))
        return rows.mul_(coefficients[0]).addcmul_(partners, coefficients[1])


class Relative(Drift):
    """In the coordinates of `System.basis`."""

    def __init__(self, system: System) -> None:
        self.basis, flow = system.basis, system.relative.flow
        self.still, self._flow, spectrum = not flow.any(), flow, Spectrum(flow)
        self._spectrum = spectrum if spectrum.accurate(system.relative) else None
        reach = np.linalg.matrix_power(np.eye(len(flow)) + (flow != 0), len(flow)) > 0
        self._sources = [[t for t in np.flatnonzero(row) if t != s] for s, row in enumerate(reach)]
        self._in_place = all(t > s for s, sources in enumerate(self._sources) for t in sources)
        self._fades = flow.diagonal() != 0  # where triangular, what is 0 here stays 1 there

    def coefficients(self, elapsed: Floats) -> list[Tensor]:
        if self._spectrum is not None:
            return [self._spectrum.matrices(elapsed)]
        times = torch.from_numpy(elapsed)[:, None, None]
        return [torch.linalg.matrix_exp(torch.tensor(self._flow) * times)]

    def apply(self, rows: Tensor, coefficients: Sequence[Tensor]) -> Tensor:
        matrices = coefficients[0]
        moved = rows if self._in_place else torch.empty_like(rows)
        for s, sources in enumerate(self._sources):
            if not self._in_place:
                torch.mul(rows[:, s], matrices[:, s, s, None], out=moved[:, s])
            elif self._fades[s]:
                moved[:, s].mul_(matrices[:, s, s, None])
            for t in sources:
                moved[:, s].addcmul_(rows[:, t], matrices[:, s, t, None])
        return moved


def _eigen(flow: Floats) -> tuple[NDArray[Any], NDArray[Any]]:
    """Eigenvalues [S] and vectors [S, S]. Where LAPACK finds an eigenvalue twice (DADAO's 0), its
    vectors may be all but parallel: a basis of their space, if there is one, takes their place."""
    values, vectors = np.linalg.eig(flow)
    found, near = values.copy(), EQUAL * np.abs(flow).max()
    for value in values:
        centre = value.real if abs(value.imag) <= near else value
        same = np.abs(values - centre) <= near
        if np.count_nonzero(same) > 1:
            found[same] = centre
            apart = np.linalg.svd(flow - centre * np.eye(len(flow)))[2]
            vectors[:, same] = apart[-np.count_nonzero(same) :].conj().T
    return found, vectors


def drift(system: System, short: bool) -> Drift:
    """The coordinates that suit the system and the length of its vectors."""
    modes = Spectrum(system.flow)
    if short and system.flow.any() and modes.skew < SKEWED and modes.accurate(system):
        return Modes(modes)
    return Relative(system)
