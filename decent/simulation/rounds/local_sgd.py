"""Local SGD: H local steps on each worker, then all take the mean.

    x_i ← x_i − η g_i(x_i)          H times
    x_i ← mean_j x_j

State of the local optimizer stays with its worker. Source: Stich, "Local SGD Converges Fast and
Communicates Little" (ICLR 2019), Algorithm 1; McMahan et al.'s federated averaging (AISTATS 2017).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from decent.simulation.rounds.method import Round, average, check_period
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class LocalSGD:
    """An average over all, n − 1 exchanges, every `period` rounds."""

    period: int = 8  # H

    name: ClassVar[str] = "local_sgd"

    def __post_init__(self) -> None:
        check_period(self.period)

    def rounds(self, problem: Problem) -> Iterator[Round]:
        x, optimizer = problem.start, problem.local()
        yield Round(x, 0, 0)
        for k in count(1):
            x = x + problem.local_step(optimizer, x)
            if k % self.period == 0:
                x = average(x)
            yield Round(x, k, k // self.period * (problem.n - 1))
