"""Poisson: each edge fires at the points of a Poisson process (DADAO, ICML 2023, §3.1).

The superposition of the edges' processes is drawn at once: exponential gaps at the total rate,
then a neighbour in proportion to its own. Numbers are drawn in blocks of `BLOCK`, so that a
simulation of many workers may take whole blocks and still meets the very contacts of a real run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from decent.schedule.base import Contact, Times, View, Workers

BLOCK = 32


@dataclass(frozen=True)
class Poisson:
    """Memoryless contacts at the topology's rates. `redistribute`: contacts that fall due on a
    suspended edge are made on the others, so that the worker's rate is kept; χ₁ and χ₂, which the
    momentum counts on, are then those of another graph."""

    redistribute: bool = False

    def contacts(self, view: View) -> Iterator[Contact]:
        for times, peers in self.blocks(view):
            for time, peer in zip(times.tolist(), peers.tolist(), strict=True):
                if self.redistribute:
                    yield time, None  # to look at that time, not before
                    peer = view.in_place_of(peer)
                yield time, peer

    def blocks(self, view: View) -> Iterator[tuple[Times, Workers]]:
        """The same contacts, `BLOCK` at a time."""
        peers = np.array([peer for peer, rate in view.rates.items() if rate > 0], dtype=np.int64)
        total, time = sum(view.rates.values()), 0.0
        shares = np.cumsum([view.rates[peer] for peer in peers.tolist()]) / total if total else None
        while shares is not None:
            times = time + np.cumsum(view.rng.exponential(1 / total, BLOCK))
            yield (
                times,
                peers[np.searchsorted(shares, shares[-1] * view.rng.random(BLOCK), "right")],
            )
            time = times[-1]
