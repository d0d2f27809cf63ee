"""A state of torch's global CPU generator of one's own, put in place while one works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class OwnRandomness:
    """Base of what draws from the global generator and must neither disturb others nor be
    disturbed; `_random` is its state of it."""

    _random: Tensor

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        outside = torch.get_rng_state()
        torch.set_rng_state(self._random)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(outside)
