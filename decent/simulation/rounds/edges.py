"""Random edges, one after the other, and which of them may act at once.

Edge e is drawn with probability p_e = rate_e / Σ rates, so one edge acts per unit of time. Edges
without a worker in common commute: the same result comes of taking them together, layer by layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from decent.schedule import stream
from decent.topology import Topology

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Edges:
    """The edges of a graph as a Poisson process of total rate 1. A worker alone has none."""

    def __init__(self, topology: Topology, seed: int) -> None:
        rates = np.asarray(topology.rates)
        self.probabilities = rates / rates.sum() if len(rates) else rates
        self.topology = topology.with_rates(list(self.probabilities))
        self._edges = np.asarray(topology.edges, dtype=np.int64).reshape(-1, 2)
        self._random = stream(seed, "edges")

    def draw(self, count: int) -> Ints:
        """The next `count` edges, [count, 2]; none if there are none."""
        if not len(self._edges):
            return np.empty((0, 2), dtype=np.int64)
        chosen = self._random.choice(len(self._edges), count, p=self.probabilities)
        pairs: Ints = self._edges[chosen]
        return pairs

    def gaps(self, count: int) -> Floats:
        """Times between the next events, [count]."""
        return self._random.exponential(size=count)


def layers(pairs: Ints) -> list[Ints]:
    """Positions in `pairs` [m, 2] in layers. Pairs of a layer share no worker, and each worker
    meets its pairs in their order."""
    depth = np.zeros(len(pairs), dtype=np.int64)
    free: dict[int, int] = {}
    for k, (i, j) in enumerate(pairs.tolist()):
        depth[k] = max(free.get(i, 0), free.get(j, 0))
        free[i] = free[j] = int(depth[k]) + 1
    order = np.argsort(depth, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(depth[order])) + 1) if len(pairs) else []
