"""How fast each worker steps, as a configuration has it: in seconds, or in expected steps."""

from __future__ import annotations

import numpy as np

from decent.config import Config
from decent.schedule import stream
from decent.simulation.cluster import Pace


def paces(config: Config, n: int, *, unit: bool = False) -> list[Pace]:
    """One for each of n workers; with `unit`, an expected step takes 1."""
    rng, table = stream(config.seed, "spread of pace"), config.simulation
    step = 1.0 if unit else table.step_s
    means = step * np.exp(table.step_spread * rng.normal(size=n))
    return [Pace(mean, table.step_jitter, table.gradients == "poisson") for mean in means.tolist()]
