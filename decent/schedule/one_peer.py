"""OnePeer: in each round one neighbour, in turn; the lower end of the edge starts.

Neighbours are taken in the order of `worker XOR peer`. On a hypercube round k then pairs all
workers along dimension k, and without gradients the mean is exact after log₂ n rounds (Ying et
al., "Exponential Graph is Provably Efficient for Decentralized Deep Training", NeurIPS 2021, for
the one-peer exponential graph); on an even ring the rounds alternate the two perfect matchings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decent.errors import ScheduleError
from decent.schedule.base import Contact, View


@dataclass(frozen=True)
class OnePeer:
    """One neighbour a round, a round `every` units of time (default: what the rates imply)."""

    every: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None and not self.every > 0:
            raise ScheduleError(f"every = {self.every}", "a positive number of local steps")

    def contacts(self, view: View) -> Iterator[Contact]:
        peers = sorted(view.rates, key=lambda peer: view.worker ^ peer)
        total = 2 * sum(view.rates.values())  # ours and the other ends' halves
        if not peers or not (self.every or total):
            return
        period = self.every or 1 / total
        turn = 0
        while True:
            peer = peers[turn % len(peers)]
            turn += 1
            yield turn * period, peer if view.worker < peer else None
