"""How fast workers agree without gradients: exact figures, and what delays do to momentum.

Figures: exact slopes of the logarithm of the mean square distance from the mean per unit of time,
over the window that is fitted, on a ring of 16 at one model per worker and unit (the generator of
the second moments; its right-most eigenvalue, 0.075351 and 0.198551, is what they tend to).
"""

from __future__ import annotations

import numpy as np
import pytest

from decent.dynamics import Acid, Dynamics, Gossip
from decent.schedule import Poisson
from decent.testing import Cluster, Limits, Network, cluster
from decent.topology import Link, family

RING = family("ring", 16).with_models_per_worker(1.0)
QUIET = Limits(beat_s=1e9, silent_s=1e9, dead_s=1e9, max_open=16)


def distance(c: Cluster) -> float:
    """Σ_i ‖x_i − x̄‖² now."""
    for worker in c.workers.values():
        worker.refresh(c.now_s)
    x = np.array([worker.slots.array[0] for worker in c.workers.values()])
    return float(((x - x.mean(axis=0)) ** 2).sum())


def distances(
    dynamics: Dynamics, times: list[float], seeds: int, latency: float = 0.0, follow: bool = True
) -> list[float]:
    """Mean over seeds at each of `times`."""
    found = np.zeros((seeds, len(times)))
    for seed in range(seeds):
        c = cluster(
            RING, dynamics, Poisson(), 16, merge=False, limits=QUIET, seed=seed,
            network=Network(RING, Link(latency)), follow=follow,
        )  # fmt: skip
        for k, time in enumerate(times):
            found[seed, k] = distance(c.run(time))
    return list(found.mean(axis=0))


@pytest.mark.parametrize(
    ("dynamics", "follow", "exact"),
    [(Gossip(), False, 0.07985), (Acid(), False, 0.18869), (Acid(), True, 0.18869)],
    ids=["gossip", "a2cid2", "a2cid2 that follows measured rates"],
)
def test_decay_is_the_exact_one(dynamics: Dynamics, follow: bool, exact: float) -> None:
    """To the error of 32 seeds."""
    times = list(np.linspace(8.0, 25.6 if dynamics.name == "a2cid2" else 54.4, 8))
    slope = np.polyfit(times, np.log(distances(dynamics, times, 32, follow=follow)), 1)[0]
    assert slope == pytest.approx(-exact, rel=0.1)


@pytest.mark.parametrize("round_trip", [2.0, 3.0, 6.0])
def test_momentum_that_follows_shrinks_the_distance_at_any_delay(round_trip: float) -> None:
    early, late = distances(Acid(), [20.0, 60.0], 6, round_trip / 2)
    assert late < 0.25 * early
    if round_trip <= 3:
        assert late < 0.5 * distances(Gossip(), [60.0], 6, round_trip / 2)[0]


def test_momentum_at_nominal_rates_diverges_at_three_units() -> None:
    early, late = distances(Acid(), [20.0, 60.0], 6, 1.5, follow=False)
    assert late > 1.5 * early
