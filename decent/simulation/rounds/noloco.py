"""NoLoCo: DiLoCo without its average over all; each outer step is shared by a random pair.

    θ_i ← H steps of worker i's optimizer from φ_i
    m_i ← μ m_i + ε mean_P(θ − φ) + γ (mean_P(φ) − φ_i)          mean_P over i and its partner
    φ_i ← φ_i + m_i,   θ_i ← φ_i

So the mean over all workers has heavy-ball momentum, m̄ ← μ m̄ + ε (θ̄ − φ̄), and γ alone holds the
workers together: of many, without gradients, disagreement falls in mean square for γ < 1.49 where
μ = 0.5, and only for γ < 0.37 where μ = 0.9. With an odd number one worker is its own partner.
Source: Kolehmainen et al., "NoLoCo: No-all-reduce Low Communication Training Method for Large
Models" (2025); its published code has γ = ε = 0.7, and μ = 0.5 and H = 50 in its runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch
from torch import Tensor

from decent.schedule import stream
from decent.simulation.rounds.method import Round, check_period
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class NoLoCo:
    """⌊n/2⌋ exchanges every `period` rounds: ε (θ − φ) + γ φ is all that a partner has to know."""

    period: int = 50  # H
    lr: float = 0.7  # ε, outer
    momentum: float = 0.5  # μ, outer
    pull: float = 0.7  # γ
    seed: int = 0

    name: ClassVar[str] = "noloco"

    def __post_init__(self) -> None:
        check_period(self.period)

    def rounds(self, problem: Problem) -> Iterator[Round]:
        optimizer, theta, phi = problem.local(), problem.start, problem.start
        m = torch.zeros_like(phi)
        yield Round(theta, 0, 0)
        for k in count(1):
            theta = theta + problem.local_step(optimizer, theta)
            if k % self.period == 0:
                sent = self.lr * (theta - phi) + self.pull * phi
                received = sent[self._partners(problem, k)]
                m = self.momentum * m + (sent + received) / 2 - self.pull * phi
                theta = phi = phi + m
            yield Round(theta, k, k // self.period * (problem.n // 2))

    def _partners(self, problem: Problem, k: int) -> Tensor:
        """[n]: whom each worker meets after step k."""
        order = torch.as_tensor(stream(self.seed, "noloco", k).permutation(problem.n))
        half = problem.n // 2
        first, second, partners = order[:half], order[half : 2 * half], torch.arange(problem.n)
        partners[first], partners[second] = second, first
        return partners.to(problem.workers)
