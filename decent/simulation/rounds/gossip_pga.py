"""Gossip-PGA: gossip in every round, and a mean over all in every H-th.

    x_i ← x_i − η g_i(x_i)
    x_i ← mean_j x_j  in every H-th round,  Σ_j W_ij x_j  in the others

Source: Chen et al., "Accelerating Gossip SGD with Periodic Global Averaging" (ICML 2021), Algorithm
1. H = 1 is all-reduce; H = ∞ is D-PSGD, adapting first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

from decent.simulation.rounds.method import Round, average, check_period
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class GossipPGA:
    """One vector over each edge in use, or n − 1 exchanges every `period` rounds."""

    period: int = 8  # H

    name: ClassVar[str] = "gossip_pga"

    def __post_init__(self) -> None:
        check_period(self.period)

    def rounds(self, problem: Problem) -> Iterator[Round]:
        x, optimizer, messages = problem.start, problem.local(), 0.0
        yield Round(x, 0, 0)
        for k in count():
            x = x + problem.local_step(optimizer, x)
            if (k + 1) % self.period == 0:
                x = average(x)
                messages += problem.n - 1
            else:
                x = problem.mix(k, x)
                messages += problem.mixing.exchanges(k)
            yield Round(x, k + 1, messages)
