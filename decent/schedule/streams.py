"""Named, counter-based random streams.

`stream(seed, "edge", 3, 4)` is the same generator wherever and in whatever order it is asked for,
so the simulator and a real run draw the same numbers. Philox keyed by a BLAKE2 hash of the names.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """The generator of `names` under `seed`."""
    text = "/".join(str(name) for name in (seed, *names))
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))
