"""Workers in virtual time over modelled links: the runtime's own `Worker`s on an event queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decent.simulation.cluster import Cluster, Fault, Learner, Pace
from decent.simulation.network import Network

if TYPE_CHECKING:
    from decent.simulation.run import compare as compare
    from decent.simulation.run import simulate as simulate

__all__ = ["Cluster", "Fault", "Learner", "Network", "Pace", "compare", "simulate"]


def __getattr__(name: str) -> Any:
    if name in ("compare", "simulate"):  # these need torch
        from decent.simulation import run

        return getattr(run, name)
    raise AttributeError(name)
