"""Consensus: vectors that are to agree on their mean, and nothing to descend on.

Worker i starts from x_i ~ N(0, I) [size] where `init = "own"`, and what the exchanges alone do is
all that happens. A real run takes steps of zero gradients, as many as it is told; the batched
engine takes none. What to watch is how far apart the workers are, (1/n) Σ_i ‖x_i − x̄‖², which the
engines measure; one model by itself can tell its mean square, 1 at the start and about 1/n once n
workers agree.
"""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from decent.errors import TaskError
from decent.learning.classification import check_positive
from decent.learning.convex import Point
from decent.learning.objective import Objective

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Standstill(Objective):
    """Gradients of 0 for `n` workers, over vectors of `size`; there is no need to ask for them."""

    without_gradients = True

    def __init__(self, n: int, size: int, dtype: torch.dtype) -> None:
        self.n, self.size, self.dtype = n, size, dtype

    def gradients(self, points: Tensor, workers: Tensor, drawn: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(points), None

    def to(self, device: torch.device) -> Standstill:
        moved = copy(self)
        moved.device = device
        return moved


class Consensus:
    """Nothing to learn: random vectors that are to agree on their mean."""

    name: ClassVar[str] = "consensus"

    def __init__(self, size: int = 1000, dtype: str = "float64") -> None:
        check_positive(self.name, size=size)
        if dtype not in DTYPES:
            raise TaskError(f"option dtype = {dtype!r}", " or ".join(map(repr, DTYPES)))
        self.size, self.dtype = size, DTYPES[dtype]

    @staticmethod
    def status() -> str:
        return "ready"

    def objective(self, workers: int) -> Standstill:
        check_positive(self.name, workers=workers)
        return Standstill(workers, self.size, self.dtype)

    def model(self) -> nn.Module:
        return Point(self.size, dtype=self.dtype)

    def data(self, worker: int, workers: int) -> TensorDataset:
        if not 0 <= worker < workers:
            raise TaskError(f"worker {worker} of {workers}", f"0 to {workers - 1}")
        return TensorDataset(torch.zeros(1))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return 0 * next(model.parameters()).sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"mean_square": float(next(model.parameters()).detach().square().mean())}
