"""Periodic: every edge fires at regular intervals of 1/rate, with a random phase."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from decent.schedule.base import Contact, View


@dataclass(frozen=True)
class Periodic:
    """Contacts with each neighbour at regular intervals."""

    def contacts(self, view: View) -> Iterator[Contact]:
        gaps = {peer: 1 / rate for peer, rate in view.rates.items() if rate > 0}
        coming = [(gap * view.rng.random(), peer) for peer, gap in gaps.items()]
        heapq.heapify(coming)
        while coming:
            time, peer = coming[0]
            yield time, peer
            heapq.heapreplace(coming, (time + gaps[peer], peer))
