"""Quadratics with a known answer, and mixings, for the round-based methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decent.learning.local import SGD, LocalOptimizer
from decent.learning.objective import Objective
from decent.simulation.rounds import Method, Mixing, Problem, Round
from decent.topology import Topology, family

DTYPE = torch.float64


class Quadratic(Objective):
    """f_i(x) = ½ (x − c_i)ᵀ H_i (x − c_i); `taken` counts the gradients of either kind."""

    def __init__(self, hessians: Tensor, centers: Tensor) -> None:
        self.hessians, self.centers = hessians, centers
        self.n, self.size = centers.shape
        self.dtype = centers.dtype
        spectrum = torch.linalg.eigvalsh(hessians)
        self.mu, self.L = float(spectrum.min()), float(spectrum.max())
        self.slopes = torch.einsum("nij,nj->ni", hessians, centers)
        self.optimum = torch.linalg.lstsq(hessians.sum(0), self.slopes.sum(0)[:, None])[0][:, 0]
        self.taken = 0

    def at(self, points: Tensor) -> Tensor:
        """∇f_i(x_i), [n, d]."""
        product: Tensor = torch.einsum("nij,nj->ni", self.hessians, points)
        return product - self.slopes

    def gradients(self, points: Tensor, workers: Tensor, drawn: Tensor) -> tuple[Tensor, None]:
        self.taken += len(workers)
        product = torch.einsum("kij,kj->ki", self.hessians[workers], points)
        return product - self.slopes[workers], None

    def dual_gradients(self, points: Tensor, workers: Tensor) -> Tensor:
        self.taken += len(workers)
        solved: Tensor = torch.linalg.solve(self.hessians[workers], points + self.slopes[workers])
        return solved

    def measures(self, points: Tensor) -> dict[str, float]:
        return {"distance": float((points - self.optimum).square().sum(1).mean())}


def quadratic(n: int, d: int = 4, kappa: float = 10.0, alike: bool = False) -> Quadratic:
    """Each f_i with eigenvalues from 1 to κ in its own directions; all the same one if `alike`."""
    random = torch.Generator().manual_seed(7)
    turns = torch.linalg.qr(torch.randn(n, d, d, generator=random, dtype=DTYPE))[0]
    values = 1 + (kappa - 1) * torch.rand(n, d, generator=random, dtype=DTYPE)
    values[:, 0], values[:, -1] = 1, kappa
    hessians = torch.einsum("nij,nj,nkj->nik", turns, values, turns)
    centers = torch.randn(n, d, generator=random, dtype=DTYPE)
    if alike:
        hessians, centers = hessians[:1].repeat(n, 1, 1), centers[:1].repeat(n, 1)
    return Quadratic(hessians, centers)


def flat(n: int, d: int = 3) -> Quadratic:
    """Nothing to learn: gradients are 0 everywhere."""
    return Quadratic(torch.zeros(n, d, d, dtype=DTYPE), torch.zeros(n, d, dtype=DTYPE))


@dataclass(frozen=True)
class Static:
    """Metropolis weights on a graph, the same in every round."""

    topology: Topology

    def weights(self, k: int) -> NDArray[np.float64]:
        weights = np.zeros((self.topology.n, self.topology.n))
        degree = [len(self.topology.neighbours(i)) for i in range(self.topology.n)]
        for i, j in self.topology.edges:
            weights[i, j] = weights[j, i] = 1 / (1 + max(degree[i], degree[j]))
        np.fill_diagonal(weights, 1 - weights.sum(axis=1))
        weights.flags.writeable = False
        return weights

    def exchanges(self, k: int) -> float:
        return float(len(self.topology.edges))


@dataclass(frozen=True)
class Alternating:
    """Pairs on a ring of even length: those of even rounds first, then those between them."""

    n: int

    def weights(self, k: int) -> NDArray[np.float64]:
        weights = np.eye(self.n) / 2
        first = np.arange(k % 2, self.n, 2)
        second = (first + 1) % self.n
        weights[first, second] = weights[second, first] = 0.5
        return weights

    def exchanges(self, k: int) -> float:
        return self.n / 2


def graph(name: str, n: int) -> Topology:
    return Topology(1, (), ()) if n == 1 else family(name, n)


def problem(
    objective: Quadratic,
    name: str = "ring",
    lr: float | None = None,
    start: Tensor | None = None,
    mixing: Mixing | None = None,
    optimizer: Callable[[], LocalOptimizer] | None = None,
) -> Problem:
    """`objective` on a graph, all workers from the same point unless there is a `start`; local
    steps are those of plain SGD at `lr`, if given."""
    topology = graph(name, objective.n)
    if start is None:
        start = torch.full((objective.n, objective.size), 3.0, dtype=objective.dtype)
    if lr is not None:
        optimizer = lambda: SGD(lr)  # noqa: E731
    return Problem(objective, mixing or Static(topology), topology, start, optimizer)


def scattered(n: int, d: int) -> Tensor:
    """[n, d]: everybody somewhere else."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=DTYPE)


def first(method: Method, problem: Problem, rounds: int) -> list[Round]:
    """The start and the first `rounds` rounds; points are copies."""
    found = islice(method.rounds(problem), rounds + 1)
    return [each._replace(points=each.points.clone()) for each in found]


def distances(method: Method, problem: Problem, rounds: int) -> NDArray[np.float64]:
    """[rounds + 1]: mean_i ‖x_i − x*‖² after each round."""
    objective = problem.objective
    return np.array(
        [objective.measures(each.points)["distance"] for each in first(method, problem, rounds)]
    )
