"""Continuized acceleration of the dual: random edges act one by one, two dual gradients at each.

    drift       y' = η (z − y)           z' = η (y − z)
    event       d = ∇f_i*(y_i) − ∇f_j*(y_j)                     edge (i, j), at rate p_ij, Σ p = 1
                y_i ← y_i − γ d          z_i ← z_i − γ̃ d          (opposite sign at j)

    η = ½ √(μ/(L χ₁χ₂)) per unit of time,   γ = μ/2,   γ̃ = ½ √(μ L χ₁/χ₂)

with χ₁, χ₂ of the Laplacian weighted by p, from y = z = 0. The primal points are ∇f_i*(y_i); the
dual's error falls as e^(−ηt) in expectation. With μ = L = 1 it is A²CiD²'s gossip. Source: Even et
al., "A Continuized View on Nesterov Acceleration for Stochastic Gradient Descent and Randomized
Gossip" (NeurIPS 2021), accelerated coordinate descent on the dual, in its appendix.

These constants are derived anew from that Lyapunov function, a (F* − min F*) + ½ b ‖z − z*‖²: with
b = a/(L χ₁) its drift asks for γ̃ = η L χ₁, and an event with γ = μ/2 (the best step along an edge
of a 2/μ-smooth dual) is a descent if a μ/2 ≥ 2 b χ₂ γ̃². The published implementation scales γ by
each edge's resistance over the largest one and has an η √2 times larger than this allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from decent.simulation.rounds.edges import Edges, Floats, Ints, layers
from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import DualGradients, Problem
from decent.topology import Topology


@dataclass(frozen=True)
class Continuized:
    """A round is n events, so 2 dual gradients per worker and n vectors, each way over an edge. The
    points are looked at after it; those n further dual gradients are no part of the algorithm."""

    seed: int = 0

    name: ClassVar[str] = "continuized"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        (mu, L), dual = problem.constants(self.name), problem.dual_gradients(self.name)
        yield Round(problem.start, 0, 0)
        if problem.n == 1:  # nobody to meet: the first dual gradient is the answer
            alone = dual(torch.zeros_like(problem.start), problem.workers)
            yield from (Round(alone, k, 0) for k in count(1))
        edges = Edges(problem.topology, self.seed)
        state = _State(problem, edges.topology, mu, L, dual)
        for k in count(1):
            state.advance(edges.draw(problem.n), edges.gaps(problem.n))
            yield Round(state.points(), 2 * k, k * problem.n)


class _State:
    """y and z [n, d], each worker's as of its own `clock`: drift waits until a worker is met."""

    def __init__(
        self, problem: Problem, topology: Topology, mu: float, L: float, dual: DualGradients
    ) -> None:
        chi_1, chi_2 = topology.chi_1, topology.chi_2
        self.eta = 0.5 * math.sqrt(mu / (L * chi_1 * chi_2))
        self.near, self.far = mu / 2, 0.5 * math.sqrt(mu * L * chi_1 / chi_2)  # γ, γ̃
        self.dual, self.workers = dual, problem.workers
        self.y, self.z = torch.zeros_like(problem.start), torch.zeros_like(problem.start)
        self.clock, self.now = np.zeros(problem.n), 0.0

    def advance(self, pairs: Ints, gaps: Floats) -> None:
        """The events at `pairs` [m, 2], `gaps` [m] apart, and drift up to the last."""
        times = self.now + np.cumsum(gaps)
        for chosen in layers(pairs):
            met = pairs[chosen].T.reshape(-1)  # first ends, then second ends
            self._drift(met, np.tile(times[chosen], 2))
            self._meet(torch.as_tensor(met).to(self.workers))
        self.now = float(times[-1])
        self._drift(np.arange(len(self.clock)), np.full(len(self.clock), self.now))

    def points(self) -> Tensor:
        """∇f_i*(y_i), [n, d]."""
        return self.dual(self.y, self.workers)

    def _drift(self, workers: Ints, times: Floats) -> None:
        passed, self.clock[workers] = times - self.clock[workers], times
        share = torch.as_tensor(-np.expm1(-2 * self.eta * passed) / 2).to(self.y)[:, None]
        rows = torch.as_tensor(workers).to(self.workers)
        moved = share * (self.z[rows] - self.y[rows])
        self.y[rows] += moved
        self.z[rows] -= moved

    def _meet(self, rows: Tensor) -> None:
        first, second = self.dual(self.y[rows], rows).chunk(2)
        apart = torch.cat([first - second, second - first])
        self.y[rows] -= self.near * apart
        self.z[rows] -= self.far * apart
