"""Drives one worker in real time: training here, talking in a communicator process beside it.

The communicator imports this package too, so nothing here may import torch before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decent.runtime.gossip import Gossip as Gossip


def __getattr__(name: str) -> Any:
    if name == "Gossip":
        from decent.runtime.gossip import Gossip

        return Gossip
    raise AttributeError(name)
