"""D-PSGD: every worker mixes with its neighbours and takes a local step, in every round.

    x_i ← Σ_j W_ij x_j − η g_i(x_i)          g_i a stochastic gradient of f_i

and with `adapt_first` (adapt, then combine) x_i ← Σ_j W_ij (x_j − η g_j(x_j)). At a constant step
it comes to rest at the fixed point of that map, which is off the optimum where the f_i differ. η g
is what the problem's optimizer makes of the gradient; without one, η is half of the largest that is
stable whatever the f_i, (1 + λ_min(W))/L (Yuan, Ling & Yin, SIAM J. Optim. 2016), or 1/L if steps
are mixed. Source: Lian et al., "Can Decentralized Algorithms Outperform Centralized Algorithms?"
(NeurIPS 2017), Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import ClassVar

import numpy as np

from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import Problem


@dataclass(frozen=True)
class DPSGD:
    """One vector over each edge in use, each round."""

    adapt_first: bool = False

    name: ClassVar[str] = "dpsgd"

    def rounds(self, problem: Problem) -> Iterator[Round]:
        part = 1.0 if self.adapt_first else (1 + _lowest(problem)) / 2
        x, optimizer, messages = problem.start, problem.local(part), 0.0
        yield Round(x, 0, 0)
        for k in count():
            step = problem.local_step(optimizer, x)
            x = problem.mix(k, x + step) if self.adapt_first else problem.mix(k, x) + step
            messages += problem.mixing.exchanges(k)
            yield Round(x, k + 1, messages)


def _lowest(problem: Problem) -> float:
    """λ_min of W, of its symmetric part if it has another."""
    weights = problem.mixing.weights(0)
    return float(np.linalg.eigvalsh((weights + weights.T) / 2)[0])
