"""The limits of a run's workers, as its configuration has them."""

from __future__ import annotations

import math

from decent import units
from decent.config import Config
from decent.worker import Limits

APART_KIB = 128
"""A chunk where links join the workers: others wait for as long as one takes, signs of life among
them: at 100 Mbit/s that is 10 ms."""
BESIDE_KIB = 512, 4096
"""A chunk where they are on one machine, at least and at most. The more values, the fewer messages
and the longer each is; what a worker keeps of chunks for each neighbour stays small beside them."""
BESIDE = 64
"""… and how many there are in between"""
WINDOW = {False: 4, True: 64}
"""Chunks in flight, at most: beside one another, few stay in the cache and in shared memory; of
links, it is for the window to find out."""
RETRY_LEAST_S = {False: 0.25, True: 0.4}
"""TCP itself may rest for 0.2 s and a round trip, to look at an empty link (BBR)."""


def chunk_kib(config: Config, apart: bool, nbytes: int) -> int:
    """KiB of values in a chunk, where all are `nbytes`."""
    kib = config.runtime.chunk_kib
    if kib != "auto":
        return kib
    least, most = BESIDE_KIB
    return APART_KIB if apart else min(most, max(least, nbytes // (1024 * BESIDE)))


def limits(config: Config, values: int, itemsize: int, apart: bool) -> Limits:
    """With so many values of so many bytes; `apart`: whether links join the workers."""
    runtime, exchange = config.runtime, config.exchange
    bandwidth = exchange.bandwidth
    return Limits(
        chunk=max(1, chunk_kib(config, apart, values * itemsize) * 1024 // itemsize),
        window=WINDOW[apart], retry_least_s=RETRY_LEAST_S[apart],
        start_s=runtime.start_s, silent_s=runtime.silent_s, dead_s=runtime.dead_s,
        max_open=exchange.max_open,
        bandwidth=math.inf if bandwidth is None else units.rate("exchange.bandwidth", bandwidth),
    )  # fmt: skip
