"""The exponential moving average of a parameter vector, without a bias towards its beginning.

    a_n = a_{n−1} + (1 − β)/(1 − βⁿ)·(θ_n − a_{n−1})

which is (1 − β)·Σ_i β^{n−i} θ_i / (1 − βⁿ): the weights of the past sum to 1 from the first step
on, as in Adam (Kingma & Ba, arXiv 1412.6980, §3), so a run shorter than 1/(1 − β) steps is the mean
of itself and not of its initial weights.
"""

from __future__ import annotations

from torch import Tensor


class Average:
    """Of `vector`, from which it takes its first value; β = `decay`, 0 ≤ β < 1."""

    def __init__(self, vector: Tensor, decay: float) -> None:
        self.value, self.decay = vector.detach().clone(), decay

    def update(self, vector: Tensor, n: int) -> None:
        """Take in `vector`, the n-th, n ≥ 1."""
        self.value.lerp_(vector, (1 - self.decay) / (1 - self.decay**n))
