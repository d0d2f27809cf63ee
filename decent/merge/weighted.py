"""The mean by samples: x̄ = Σ_i n_i·x_i / Σ_i n_i, with n_i the size of worker i's share.

The merge of federated averaging (McMahan et al., AISTATS 2017, Algorithm 1). It is worth having
where shares differ in size: a worker with eight samples should not count as much as one with 800.
"""

from __future__ import annotations

from typing import ClassVar

from decent.errors import ModelError


class Weighted:
    """A worker weighs as much as it has samples."""

    name: ClassVar[str] = "weighted"

    def weight(self, samples: int) -> float:
        if samples < 0:
            raise ModelError(f"a worker with {samples} samples", "a count of 0 or more")
        return float(samples)
