"""What the tests of the worker share: systems that stay tame, and how many examples to try.

`EXAMPLES=2000 pytest tests/worker` looks for new counterexamples; without it the examples are the
same each time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from decent.dynamics import Array, State, System
from decent.testing import Cluster, systems


def examples(count: int) -> settings:
    more = os.environ.get("EXAMPLES")
    return settings(
        deadline=None,
        max_examples=int(more or count),
        derandomize=more is None,
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Scattered:
    """A dynamics of one system, whatever the rates; every slot starts away from 0."""

    constants: System
    name: str = "scattered"

    def system(self, chi_1: float, chi_2: float) -> System:
        return self.constants

    def initial(self, x: State) -> State:
        return np.stack([np.roll(x, s) * 0.7**s for s in range(len(self.constants.slots))])


def tame(system: System, pace: float = 0.05) -> System:
    """The same with exchanges that contract and a slow drift: nothing grows without bound."""
    overlap = float(system.message @ system.mix)
    mix = system.mix * (-1 if overlap < 0 else 1) / max(1.0, 2 * abs(overlap))
    return replace(system, mix=mix, flow=pace * system.flow)


def talking() -> st.SearchStrategy[System]:
    """Systems whose exchanges send something and mix it."""
    return systems().map(tame).filter(lambda s: bool(s.mix.any() and s.message.any()))


def with_invariant(system: System, invariant: Array) -> System:
    """The same with a drift that leaves `invariant` @ state alone."""
    share = invariant @ system.flow / (invariant @ invariant)
    return replace(system, flow=system.flow - np.outer(invariant, share))


def at_rest(cluster: Cluster) -> bool:
    return not any(cluster.workers[me].exchanges.open for me in cluster.alive)


def remembered(cluster: Cluster) -> int:
    """The most replies that any worker keeps for any peer."""
    peers = [peer for worker in cluster.workers.values() for peer in worker.peers.values()]
    return max((len(peer.answers.replies) for peer in peers), default=0)
