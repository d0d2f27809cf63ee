"""What every round-based method is given, and what everything costs, counted alike for all of them.

    gradients   per worker: the mean over the n workers of the gradients each has taken; a dual
                gradient ∇f_i* counts as one gradient.
    messages    in total: exchanges over edges, one vector each way on one edge. A vector sent one
                way counts ½. An average over all n workers costs n − 1, up and down a tree.

Points are X [n, d], row i the parameters of worker i. Rounds of mixing count from 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.errors import ConfigError
from decent.learning.local import SGD, LocalOptimizer
from decent.learning.objective import Objective
from decent.topology import Topology

DualGradients = Callable[[Tensor, Tensor], Tensor]


class Mixing(Protocol):
    """Who averages with whom in each round."""

    def weights(self, k: int) -> NDArray[np.float64]:
        """W [n, n], doubly stochastic: round k takes X to W X."""
        ...

    def exchanges(self, k: int) -> float:
        """What that costs when each worker sends one vector."""
        ...


@dataclass(frozen=True)
class Problem:
    """f_1 … f_n on a graph. Methods that mix with a W use `mixing`, those that draw edges or need
    a Laplacian use `topology`. `optimizer` makes the one that takes local steps, for n workers;
    without it that is gradient descent with a step from theory, 1/L if the method has no other."""

    objective: Objective
    mixing: Mixing
    topology: Topology
    start: Tensor  # [n, d]
    optimizer: Callable[[], LocalOptimizer] | None = None

    def __post_init__(self) -> None:
        n, size = self.objective.n, self.objective.size
        if tuple(self.start.shape) != (n, size):
            raise ConfigError(f"start of shape {tuple(self.start.shape)}", f"({n}, {size})")
        if self.topology.n != n:
            raise ConfigError(
                f"a topology of {self.topology.n} workers for an objective of {n}",
                "one worker for each f_i",
            )

    @property
    def n(self) -> int:
        return self.objective.n

    @cached_property
    def workers(self) -> Tensor:
        """All of them, [n]."""
        return torch.arange(self.n, device=self.start.device)

    def gradient(self, points: Tensor, workers: Tensor | None = None) -> Tensor:
        """New ∇f_i at each row of `points`, all n rows or those of `workers`."""
        workers = self.workers if workers is None else workers
        return self.objective.gradients(points, workers, self.objective.draw(workers))[0]

    def mix(self, k: int, points: Tensor) -> Tensor:
        """W X of round k, [n, d]."""
        return points.new_tensor(self.mixing.weights(k)) @ points

    def local(self, part: float = 1.0) -> LocalOptimizer:
        """A new optimizer for local steps: the problem's own, or descent with step `part`/L."""
        if self.optimizer is not None:
            return self.optimizer()
        return SGD(lr=part / self.constants("a local step")[1])

    def local_step(self, optimizer: LocalOptimizer, points: Tensor) -> Tensor:
        """Δ [n, d]: one gradient and one step of every worker, at its own point."""
        return optimizer.displacement(self.gradient(points), self.workers, points)

    def constants(self, method: str) -> tuple[float, float]:
        """μ and L, strong convexity and smoothness of every f_i."""
        mu, L = getattr(self.objective, "mu", None), getattr(self.objective, "L", None)
        if mu is None or L is None:
            raise ConfigError(
                f"{method} on an objective that has no mu and L",
                "strongly convex f_i whose constants are known",
                "give a step or an optimizer, or choose a method that takes local steps",
            )
        return float(mu), float(L)

    def dual_gradients(self, method: str) -> DualGradients:
        """(y [k, d], workers [k]) ↦ ∇f_i*(y_i), the minimiser of f_i(x) − ⟨x, y_i⟩."""
        found: DualGradients | None = getattr(self.objective, "dual_gradients", None)
        if found is None:
            raise ConfigError(
                f"{method} on an objective without dual_gradients",
                "f_i whose conjugates have gradients in closed form",
                "choose a method that takes gradients of f_i",
            )
        return found

    def gossip_matrix(self) -> tuple[Tensor, float]:
        """The Laplacian with weight 1 on every edge over its largest eigenvalue, [n, n], and its
        eigengap γ = λ₂/λ_max. A worker alone has 0 and γ = 1."""
        laplacian = self.topology.with_rates([1.0] * len(self.topology.edges)).laplacian()
        if self.n == 1:
            return self.start.new_zeros(1, 1), 1.0
        values = np.linalg.eigvalsh(laplacian)
        gap = min(1.0, float(values[1] / values[-1]))
        return self.start.new_tensor(laplacian / values[-1]), gap
