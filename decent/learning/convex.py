"""Convex tasks: f_1 … f_n of known curvature and known optimum, in double precision.

    F(x) = (1/n) Σ_i f_i(x)         x* = argmin F         x [d]
    μ I ≼ ∇²f_i(x) ≼ L I            for every worker i and every x
    ∇f_i*(y) = argmax_x ⟨x, y⟩ − f_i(x)                   the x at which ∇f_i(x) = y

`Convex` is the problem, for all workers at once. `ConvexTask` is a task of it: the model is the
vector x alone, and a worker's data is one sample, its whole design A_i [m, d] and targets b_i [m].
So a batch of any size gives the exact ∇f_i, and plain SGD takes the steps of the theory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import copy
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from decent.errors import TaskError
from decent.learning.classification import check_positive
from decent.learning.objective import Objective
from decent.learning.vector import to_vector

DTYPE = torch.float64
STARTS = ("normal", "zeros")

Local = tuple[NDArray[np.float64], NDArray[np.float64]]


class Convex(Objective):
    """μ-strongly convex and L-smooth f_i, the optimum [d] of their mean F, and F there."""

    mu: float
    L: float
    optimum: Tensor
    optimal_value: float
    dtype = DTYPE

    @abstractmethod
    def values(self, points: Tensor) -> Tensor:
        """F at each of `points` [k, d]: [k]."""

    @abstractmethod
    def dual_gradients(self, y: Tensor, workers: Tensor) -> Tensor:
        """∇f_i* at row i of `y` [k, d] for `workers` [k]: [k, d], the caller's to change."""

    def gaps(self, points: Tensor) -> Tensor:
        """F − F(x*) at each of `points` [k, d]: [k], none below 0."""
        return (self.values(points) - self.optimal_value).clamp_(min=0)

    def measures(self, points: Tensor) -> dict[str, float]:
        """Means over `points` [k, d]: their square distance to x*, and F − F(x*)."""
        distance = (points - self.optimum).square().sum(1).mean()
        return {"distance": float(distance), "gap": float(self.gaps(points).mean())}

    def to(self, device: torch.device) -> Convex:
        if device == self.device:
            return self
        moved = copy(self)
        moved.device = device
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(moved, name, value.to(device))
        return moved


class Point(nn.Module):
    """A vector x [d] as a model, N(0, I) or zeros; for designs […, m, d] it gives A x […, m]."""

    def __init__(self, size: int, start: str = "normal", dtype: torch.dtype = DTYPE) -> None:
        super().__init__()
        zeros = torch.zeros(size, dtype=dtype)
        self.x = nn.Parameter(torch.randn_like(zeros) if start == "normal" else zeros)

    def forward(self, designs: Tensor) -> Tensor:
        return designs @ self.x


class ConvexTask(ABC):
    """f_i(x) = (1/m) Σ_j misfit(a_ij·x, b_ij) + (l2/2)‖x‖², but for the data and the misfit."""

    name: ClassVar[str]

    def __init__(self, samples: int, features: int, l2: float, start: str, seed: int) -> None:
        check_positive(self.name, samples=samples, features=features)
        if start not in STARTS:
            raise TaskError(f"option start = {start!r}", " or ".join(map(repr, STARTS)))
        self.samples, self.features, self.l2 = samples, features, l2
        self.start, self.seed = start, seed
        self._workers = 0  # how many there are: known once someone has asked for a share
        self._problem: Convex | None = None

    @staticmethod
    def status() -> str:
        return "ready"

    @abstractmethod
    def local(self, worker: int) -> Local:
        """A_i [m, d] and b_i [m] of `worker`: the same, however many others there are."""

    @abstractmethod
    def misfit(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """The mean over all of `predictions` A x and their `targets`."""

    @abstractmethod
    def problem(self, designs: NDArray[np.float64], targets: NDArray[np.float64]) -> Convex:
        """Of `designs` [n, m, d] and `targets` [n, m]."""

    def objective(self, workers: int) -> Convex:
        """The problem of the first `workers` workers; made once."""
        check_positive(self.name, workers=workers)
        self._workers = workers
        if self._problem is None or self._problem.n != workers:
            designs, targets = zip(*map(self.local, range(workers)), strict=True)
            self._problem = self.problem(np.stack(designs), np.stack(targets))
        return self._problem

    def model(self) -> nn.Module:
        return Point(self.features, self.start)

    def data(self, worker: int, workers: int) -> TensorDataset:
        if not 0 <= worker < workers:
            raise TaskError(f"worker {worker} of {workers}", f"0 to {workers - 1}")
        self._workers = workers
        return TensorDataset(*(torch.from_numpy(part)[None] for part in self.local(worker)))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x = next(model.parameters())
        designs, targets = (part.to(x.device) for part in batch)
        return self.misfit(model(designs), targets) + self.l2 / 2 * x.square().sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return self._known().measures(torch.from_numpy(to_vector(model))[None])

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Plain SGD at 1/(4L), the γ that DADAO's other constants count on."""
        return torch.optim.SGD(model.parameters(), lr=1 / (4 * self._known().L))

    def _known(self) -> Convex:
        if not self._workers:
            raise TaskError(
                f"task {self.name!r} does not know how many workers there are",
                remedy="call data(worker, workers) or objective(workers) first",
            )
        return self.objective(self._workers)


def check_not_negative(task: str, **options: float) -> None:
    """Refuse what is below 0, infinite or NaN."""
    for key, value in options.items():
        if not 0 <= value < math.inf:
            raise TaskError(f"option {key} = {value} of task {task!r}", "a finite value, 0 or more")


def check_finite(what: str, values: Tensor) -> None:
    """Refuse `values` [n, rows, …] of n workers that hold NaN or infinity."""
    finite = values.isfinite().reshape(*values.shape[:2], -1).all(2)
    if not bool(finite.all()):
        worker, row = (~finite).nonzero()[0].tolist()
        raise TaskError(
            f"{what} of worker {worker}, row {row}, holds NaN or infinity",
            "finite numbers",
            "look at the file or the code that the data comes from",
        )


def local_data(designs: ArrayLike | Tensor, targets: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """`designs` [n, m, d] and `targets` [n, m] in double precision; refused where they cannot be
    the data of n workers."""
    A, b = (torch.as_tensor(each, dtype=DTYPE) for each in (designs, targets))
    if A.ndim != 3 or b.shape != A.shape[:2] or not A.numel():
        raise TaskError(
            f"designs of shape {tuple(A.shape)} with targets of shape {tuple(b.shape)}",
            "[workers, samples, features] with [workers, samples], none of them empty",
        )
    check_finite("the design", A)
    check_finite("the targets", b)
    return A, b
