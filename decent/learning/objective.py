"""What the batched engine and the round-based methods train: f_1 … f_n, for many workers at once.

An `Objective` takes points [k, d] of k workers and gives their k gradients in one call. A task that
knows a closed form has a method `objective(workers)`; for any other, `Stacked` makes one of its
model and its loss. d is the length of the flat parameter vector, in the order of `Layout`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from decent.learning.task import Task
from decent.learning.trainer import torch_seed
from decent.learning.vector import to_vector


class Objective(ABC):
    """f_i for each worker i < n, over vectors of length `size` and of `dtype`, on `device`."""

    n: int
    size: int
    dtype: torch.dtype
    device: torch.device = torch.device("cpu")
    without_gradients: bool = False  # consensus only: nobody ever steps
    tile: int | None = None  # gradients that are best taken together on a CPU, if it matters

    def draw(self, workers: Tensor) -> Tensor:
        """What the next gradients of `workers` [k] (a worker may stand there several times, in
        its own order) are taken on, [k, …]: sample indices where gradients are stochastic."""
        return workers

    @abstractmethod
    def gradients(
        self, points: Tensor, workers: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """∇f_i at row i of `points` [k, d] for `workers` [k], on `drawn`; and the losses [k] where
        they come for free. Every worker stands there once. The result is the caller's to change."""

    def measures(self, points: Tensor) -> dict[str, float]:
        """What is to be plotted of all workers' `points` [n, d]: distance to the optimum, say."""
        return {}

    def skip(self, counts: Tensor) -> None:
        """Draw, and forget, what the first `counts` [n] gradients of each worker were taken on."""
        return

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep beside the points; tensors are live."""
        return {}

    def to(self, device: torch.device) -> Objective:
        """The same on another device."""
        if device != self.device:
            raise NotImplementedError
        return self


def starting_points(task: Task, workers: int, seed: int, init: Literal["common", "own"]) -> Tensor:
    """[workers, d]: where a `Trainer` of each worker starts, from the same draws."""
    state = torch.get_rng_state()
    try:
        if init == "common":
            return _start(task, torch_seed(seed, "init")).expand(workers, -1)
        points = _start(task, torch_seed(seed, "init", 0)).expand(workers, -1).clone()
        for worker in range(1, workers):
            points[worker] = _start(task, torch_seed(seed, "init", worker))
        return points
    finally:
        torch.set_rng_state(state)


def _start(task: Task, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.from_numpy(to_vector(task.model()))
