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


def limits(config: Config, itemsize: int, apart: bool) -> Limits:
    """With values of so many bytes; `apart`: whether there are links between the workers."""
    runtime, exchange = config.runtime, config.exchange
    kib = CHUNK_KIB[apart] if runtime.chunk_kib == "auto" else runtime.chunk_kib
    bandwidth = exchange.bandwidth
    return Limits(
        chunk=max(1, kib * 1024 // itemsize),
        start_s=runtime.start_s, silent_s=runtime.silent_s, dead_s=runtime.dead_s,
        max_open=exchange.max_open,
        bandwidth=math.inf if bandwidth is None else units.rate("exchange.bandwidth", bandwidth),
    )  # fmt: skip
