"""DiLoCo: H local steps on each worker, then one outer step with momentum along their mean.

    θ_i ← H steps of worker i's optimizer from θ
    Δ = θ − mean_i θ_i,   b ← μ b + Δ,   θ ← θ − ε (Δ + μ b)          ε = 0.7, μ = 0.9

State of the local optimizers, AdamW in the paper, stays with its workers. Source: Douillard et al.,
"DiLoCo: Distributed Low-Communication Training of Language Models" (2023), Algorithm 1, whose outer
step is Nesterov's momentum as torch.optim.SGD has it. ε = 1, μ = 0 is local SGD.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from decent.learning.local import SGD
from decent.simulation.rounds.method import Round, average, check_period
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class DiLoCo:
    """An average over all, n − 1 exchanges, every `period` rounds. All start at the mean start."""

    period: int = 500  # H
    lr: float = 0.7  # ε, outer
    momentum: float = 0.9  # μ, outer

    name: ClassVar[str] = "diloco"

    def __post_init__(self) -> None:
        check_period(self.period)

    def rounds(self, problem: Problem) -> Iterator[Round]:
        optimizer, outer = problem.local(), SGD(self.lr, self.momentum, nesterov=True)
        x = average(problem.start)
        center, one = x[:1], problem.workers[:1]
        outer.allocate(1, center)
        yield Round(x, 0, 0)
        for k in count(1):
            x = x + problem.local_step(optimizer, x)
            if k % self.period == 0:
                away = center - x.mean(dim=0, keepdim=True)
                center = center + outer.displacement(away, one, center)
                x = center.expand_as(x)
            yield Round(x, k, k // self.period * (problem.n - 1))
