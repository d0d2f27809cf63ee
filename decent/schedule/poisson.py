"""Poisson: each edge fires at the points of a Poisson process (DADAO, ICML 2023, §3.1).

The superposition of the edges' processes is drawn at once: exponential gaps at the total rate,
then a neighbour in proportion to its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decent.schedule.base import Contact, View


@dataclass(frozen=True)
class Poisson:
    """Memoryless contacts at the topology's rates."""

    def contacts(self, view: View) -> Iterator[Contact]:
        total = sum(view.rates.values())
        time = 0.0
        while total > 0:
            time += view.rng.exponential(1 / total)
            yield time, view.draw_peer()
