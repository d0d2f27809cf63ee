"""Poisson events on a topology that changes with time: in [k·period, (k + 1)·period) exchanges
happen on the edges of round k of a `Varying`, and on no others.
"""

from __future__ import annotations

import numpy as np

from decent.simulation.ideal.events import Events, Superposed
from decent.topology import Topology
from decent.topology.varying import Varying


class Changing(Superposed):
    """Gradients at rate 1 per worker; exchanges at the edges' own rate, `models`·n/(2·edges) per
    unit of time, so that a worker sends `models` models on average in every round. Constants of
    the dynamics are for the caller to choose, from the χ's of the mean graph `overall(…)`."""

    def __init__(
        self,
        varying: Varying,
        models: float = 1.0,
        *,
        period: float = 1.0,
        replicas: int = 1,
        seed: int = 0,
        gradients: bool = True,
    ) -> None:
        self._varying, self._models, self._period, self._round = varying, models, period, 0
        super().__init__(overall(varying, models, 1000), replicas, seed, gradients)

    def until(self, time: float) -> Events:
        found = Events.none()
        while self._now < time:
            edges = np.array(self._varying.edges(self._round))
            rate = self._models * self._n / (2 * max(len(edges), 1))
            self._connect(edges, np.full(len(edges), rate))
            stop = (self._round + 1) * self._period
            found = found.then(super().until(min(time, stop)))
            self._round += self._now >= stop
        return found


def overall(varying: Varying, models: float, rounds: int) -> Topology:
    """The mean of the first `rounds` rounds: every edge at its average rate. Raises TopologyError
    where they do not connect all workers."""
    rates: dict[tuple[int, int], float] = {}
    for k in range(rounds):
        edges = varying.edges(k)
        for edge in edges:
            rate = models * varying.n / (2 * len(edges))
            rates[edge] = rates.get(edge, 0.0) + rate / rounds
    return Topology.from_edges(varying.n, list(rates), list(rates.values()), family=varying.name)
