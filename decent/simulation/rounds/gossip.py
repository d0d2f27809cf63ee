"""Randomised gossip (AD-PSGD) in rounds: everybody steps, then random pairs of neighbours average.

    x_i ← x_i − η g_i(x_i)                     every worker
    x_i, x_j ← (x_i + x_j)/2                   random edges (i, j), one after the other

Edges are drawn in proportion to their rates. What asynchrony adds, gradients taken on points that
others have moved since, is left out. Source: Lian et al., "Asynchronous Decentralized Parallel
Stochastic Gradient Descent" (ICML 2018), Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import torch

from decent.errors import ConfigError
from decent.simulation.rounds.edges import Edges, layers
from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class RandomGossip:
    """`exchanges` random edges per worker and round; on average, if that times n is no integer."""

    exchanges: float = 1.0
    seed: int = 0

    name: ClassVar[str] = "gossip"

    def __post_init__(self) -> None:
        if not 0 <= self.exchanges < math.inf:
            raise ConfigError(f"exchanges = {self.exchanges}", "0 or more per worker and round")

    def rounds(self, problem: Problem) -> Iterator[Round]:
        x, optimizer = problem.start, problem.local()
        edges, messages = Edges(problem.topology, self.seed), 0
        yield Round(x, 0, 0)
        for k in count(1):
            x = x + problem.local_step(optimizer, x)
            pairs = edges.draw(int(k * self.exchanges * problem.n) - messages)
            for chosen in layers(pairs):
                i, j = torch.as_tensor(pairs[chosen].T).to(problem.workers)
                x[i] = x[j] = (x[i] + x[j]) / 2
            messages += len(pairs)
            yield Round(x, k, messages)
