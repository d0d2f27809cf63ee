"""Randomized pairwise gossip with local gradient steps: the plain method, without momentum.

    gradient    x ← x − γ ∇f_i(x)
    exchange    x_i, x_j ← (x_i + x_j)/2

One slot, no drift; γ is `step`. A learning rate inside an optimizer replaces γ in training, where
only the ratio of k over slots counts. Sources: Boyd, Ghosh, Prabhakar & Shah, "Randomized gossip
algorithms" (IEEE Trans. Inf. Theory 52(6), 2006), for the averaging; Lian et al., "Asynchronous
decentralized parallel SGD" (AD-PSGD, ICML 2018), Algorithm 1, for the gradients beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from decent.dynamics.protocol import check_positive
from decent.dynamics.system import State, System


@dataclass(frozen=True)
class Gossip:
    """Slot x. The χ's change nothing: averaging halves every difference, at whatever rate."""

    step: float = 1.0  # γ

    name: ClassVar[str] = "gossip"
    uses_chi: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("step", self.step)

    def system(self, chi_1: float, chi_2: float) -> System:
        return System(
            slots=("x",),
            flow=np.zeros((1, 1)),
            probe=np.ones(1),
            residual=np.zeros(1),
            kick=np.array([-self.step]),
            message=np.ones(1),
            mix=np.array([0.5]),
        )

    def initial(self, x: State) -> State:
        return x[np.newaxis].copy()
