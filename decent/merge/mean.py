"""The uniform mean: x̄ = (1/n) Σ_i x_i, every worker counting alike.

The merge of *A Single Merging Suffices* (Zhu et al., arXiv 2507.06542, Algorithm 1, last round).
"""

from __future__ import annotations

from typing import ClassVar


class Mean:
    """Every worker weighs 1."""

    name: ClassVar[str] = "mean"

    def weight(self, samples: int) -> float:
        return 1.0
