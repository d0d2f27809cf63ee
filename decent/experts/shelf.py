"""Experts that stay on disk until they are asked: at most `keep` of them are in memory.

The least recently used one goes before another is loaded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from decent.experts.prediction import Model


class Shelf:
    """`loaders[k]()` gives expert k, which is moved to `device`; `experts` go into an Ensemble."""

    def __init__(
        self,
        loaders: Sequence[Callable[[], nn.Module]],
        keep: int = 1,
        device: str | torch.device = "cpu",
    ) -> None:
        self._loaders, self._keep, self._device = loaders, keep, device
        self._taken: OrderedDict[int, nn.Module] = OrderedDict()

    @property
    def experts(self) -> list[Model]:
        return [partial(self.ask, k) for k in range(len(self._loaders))]

    def ask(self, k: int, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Expert k's velocity, of x's device."""
        x, t = x.to(self._device), t.to(self._device)
        condition = None if condition is None else condition.to(self._device)
        answer: Tensor = self._take(k)(x, t, condition)
        return answer

    def _take(self, k: int) -> nn.Module:
        if k not in self._taken:
            while len(self._taken) >= self._keep:
                self._taken.popitem(last=False)
            self._taken[k] = self._loaders[k]().to(self._device)
        self._taken.move_to_end(k)
        return self._taken[k]
