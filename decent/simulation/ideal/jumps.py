"""What events do to rows [k, S, d], in the coordinates T that `flow` has chosen.

A row vector of the system (probe, residual, message) becomes v·T⁻¹, a column (kick, mix) T·v. Where
that leaves one slot as it is, no product is taken.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.dynamics import System


class Reading:
    """Σ_s v[s]·row[s]: what a row vector sees of the slots."""

    def __init__(self, vector: NDArray[np.float64], like: Tensor) -> None:
        self.weights = torch.from_numpy(vector).to(like.device, like.dtype)
        one = np.flatnonzero(vector)
        self.slot = int(one[0]) if len(one) == 1 and vector[one[0]] == 1 else None

    def __call__(self, rows: Tensor) -> Tensor:
        """[…, d] of `rows` […, S, d]; a view where it is a slot."""
        if self.slot is not None:
            return rows[..., self.slot, :]
        return torch.matmul(self.weights, rows)


class Jumps:
    """Gradients and exchanges of a system in coordinates `basis` [S, S]."""

    def __init__(self, system: System, basis: NDArray[np.floating], like: Tensor) -> None:
        inverse = np.linalg.inv(basis)
        self.probe = Reading(_clean(system.probe @ inverse), like)
        self.message = Reading(_clean(system.message @ inverse), like)
        residual = _clean(system.residual @ inverse)
        self.residual = Reading(residual, like) if residual.any() else None
        kick = _clean(basis @ system.kick) / (system.kick[0] or 1.0)
        self.plain = self.probe.slot == 0 and not kick[1:].any()  # a gradient concerns slot 0 alone
        self._kick, self._mix = (
            torch.from_numpy(each).to(like.device, like.dtype)[:, None]
            for each in (kick, _clean(basis @ system.mix))
        )

    def displace(self, rows: Tensor, displacements: Tensor) -> None:
        """Add what `displacements` [k, d] of the parameters amount to."""
        rows.addcmul_(displacements[:, None], self._kick)

    def exchange(self, ends: Tensor) -> None:
        """`ends` [2, e, S, d]: each end gets b·(the other's message − its own)."""
        messages = self.message(ends)
        ends.addcmul_((messages.flip(0) - messages)[:, :, None], self._mix)


def _clean(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the rounding where there should be 0 or 1."""
    near = np.rint(vector)
    return np.where(np.abs(vector - near) <= 1e-14 * np.abs(vector).max(initial=0), near, vector)
