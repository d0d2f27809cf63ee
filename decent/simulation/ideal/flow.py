"""Drift in closed form, for many elapsed times at once: expm(A·Δt) [k, S, S].

With A = V diag(λ) V⁻¹, expm(A·Δt) = Σ_s e^(λ_s Δt)·v_s w_sᵀ: a constant matrix times e^(aΔt) for
each real λ = a, or two, times e^(aΔt)·cos(bΔt) and e^(aΔt)·sin(bΔt), for each pair a ± ib. For k
times that is one product of [k, S] and [S, S²]. Where A has no eigenvectors to speak of, its
exponential is taken for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decent.dynamics import System

Floats = NDArray[np.float64]
ACCURACY = 1e-11


class Flow:
    """expm(A·Δt) of a system, in whatever coordinates it is given."""

    def __init__(self, system: System) -> None:
        self.size = len(system.slots)
        self.flow = system.flow
        self.still = not system.flow.any()
        self._terms(*np.linalg.eig(system.flow))
        self._closed = self._accurate(system)

    def __call__(self, elapsed: Floats) -> Floats:
        """[k, S, S] for `elapsed` [k] ≥ 0."""
        if not self._closed:
            times = torch.from_numpy(elapsed)[:, None, None]
            return np.asarray(torch.linalg.matrix_exp(torch.tensor(self.flow) * times))
        waves = np.empty((len(self._parts), len(elapsed)))
        for wave, (decay, turn, phase) in zip(waves, self._waves, strict=True):
            np.exp(decay * elapsed, out=wave)
            if turn:
                wave *= np.cos(turn * elapsed - phase)
        found: Floats = (waves.T @ self._parts).reshape(len(elapsed), self.size, self.size)
        return found

    def _terms(self, values: NDArray[Any], vectors: NDArray[Any]) -> None:
        """`_waves`, (a, b, phase) of e^(aΔt)·cos(bΔt − phase), and each one's matrix."""
        waves, parts = [], []
        with np.errstate(all="ignore"):
            try:
                inverse = np.linalg.inv(vectors)
            except np.linalg.LinAlgError:
                inverse = np.full_like(vectors, np.nan)
            for s, value in enumerate(values.tolist()):
                part = np.outer(vectors[:, s], inverse[s]).ravel()
                real, turn = complex(value).real, complex(value).imag
                if turn >= 0:  # of a conjugate pair, one stands for both
                    waves.append((real, turn, 0.0))
                    parts.append(part.real * (1 + (turn > 0)))
                if turn > 0:
                    waves.append((real, turn, np.pi / 2))
                    parts.append(-2 * part.imag)
        self._waves, self._parts = waves, np.array(parts)

    def _accurate(self, system: System) -> bool:
        """Whether the closed form agrees with the exponential, to rounding, over the time scales
        that the flow has."""
        self._closed = True
        scale = 1 / max(np.abs(system.flow).max(), 1e-300)
        for time in scale * np.array([0.0, 1e-3, 1.0, 30.0]):
            exact = system.propagator(float(time))
            error = np.abs(self(np.array([time]))[0] - exact).max()
            if not error <= ACCURACY * max(1.0, np.abs(exact).max()):
                return False
        return True
