"""hivemind's averager between the two processes of `bench_exchange`, where hivemind is installed.

What is timed is the averaging alone: finding partners, which takes it seconds, is over before.
"""

from __future__ import annotations

import time
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist

from decent.errors import MissingExtra

PATIENCE_S = 120.0


class Averager:
    """One of the two, on a vector of its own."""

    def __init__(self, rank: int, params: int) -> None:
        hivemind = _imported()
        listen = ["/ip4/127.0.0.1/tcp/0"]
        self._now = hivemind.utils.get_dht_time
        first: list[Any] = [None]
        if rank == 0:
            dht = hivemind.DHT(start=True, host_maddrs=listen)
            first = [list(map(str, dht.get_visible_maddrs()))]
        dist.broadcast_object_list(first)
        if rank:
            dht = hivemind.DHT(initial_peers=first[0], start=True, host_maddrs=listen)
        self._averager = hivemind.averaging.DecentralizedAverager(
            [torch.full((params,), float(rank))], dht, prefix="bench", target_group_size=2,
            min_group_size=2, min_matchmaking_time=2.0, request_timeout=1.0, start=True,
        )  # fmt: skip

    def prepare(self) -> None:
        """Find each other."""
        when = self._now() + 3.0
        self._step = self._averager.step(
            wait=False, require_trigger=True, scheduled_time=when, timeout=PATIENCE_S
        )
        end_s = time.monotonic() + PATIENCE_S
        while self._step.stage.name != "AWAITING_TRIGGER":
            if time.monotonic() > end_s or self._step.done():
                raise TimeoutError(f"hivemind found no partner: {self._step.stage.name}")
            time.sleep(0.01)

    def average(self) -> None:
        self._step.allow_allreduce()
        self._step.result(timeout=PATIENCE_S)


def _imported() -> Any:
    try:
        return import_module("hivemind")
    except ImportError:
        raise MissingExtra(
            "--peer hivemind without hivemind", "it installed", "use: pip install hivemind"
        ) from None
