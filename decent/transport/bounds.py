"""The limits of a run's workers, as its configuration has them."""

from __future__ import annotations

import math

from decent import units
from decent.config import Config
from decent.worker import Limits

CHUNK_KIB = {False: 512, True: 128}
"""Of one machine's workers, and of workers that links join: a large chunk stays in the processor's
cache and costs the fewest messages; on a link others wait for as long as one takes, signs of life
among them: at 100 Mbit/s that is 10 ms for 128 KiB."""
WINDOW = {False: 4, True: 64}
"""Chunks in flight, at most: beside one another, few stay in the cache and in shared memory; of
links, it is for the window to find out."""
RETRY_LEAST_S = {False: 0.25, True: 0.4}
"""TCP itself may rest for 0.2 s and a round trip, to look at an empty link (BBR)."""


def chunk_kib(config: Config, apart: bool) -> int:
    """KiB of values in a chunk."""
    kib = config.runtime.chunk_kib
    return CHUNK_KIB[apart] if kib == "auto" else kib


def limits(config: Config, itemsize: int, apart: bool) -> Limits:
    """With values of so many bytes; `apart`: whether there are links between the workers."""
    runtime, exchange = config.runtime, config.exchange
    bandwidth = exchange.bandwidth
    return Limits(
        chunk=max(1, chunk_kib(config, apart) * 1024 // itemsize),
        window=WINDOW[apart], retry_least_s=RETRY_LEAST_S[apart],
        start_s=runtime.start_s, silent_s=runtime.silent_s, dead_s=runtime.dead_s,
        max_open=exchange.max_open,
        bandwidth=math.inf if bandwidth is None else units.rate("exchange.bandwidth", bandwidth),
    )  # fmt: skip
