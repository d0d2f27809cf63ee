"""Synchronous data-parallel descent: one point for all, and the mean of all gradients at each step.

    x ← x − η mean_i g_i(x)

The optimizer gets the mean gradient, so that its momentum is everybody's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from decent.simulation.rounds.method import Round, average
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class AllReduce:
    """n − 1 exchanges each round. All start at the mean start."""

    name: ClassVar[str] = "all_reduce"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        optimizer, one = problem.local(), problem.workers[:1]
        x = average(problem.start)
        yield Round(x, 0, 0)
        for k in count(1):
            gradient = problem.gradient(x).mean(dim=0, keepdim=True)
            x = (x[:1] + optimizer.displacement(gradient, one, x[:1])).expand_as(x)
            yield Round(x, k, k * (problem.n - 1))
