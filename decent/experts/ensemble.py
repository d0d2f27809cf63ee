"""Many experts as one model: u(x, t, c) = Σ_k w_k(x, t, c) u_k(x, t, c).

w = p(k | x_t, t, c), or what a strategy leaves of it, comes from the router; every expert answers
for the rows that have a weight for it, in one call, and is not called when there are none. Experts
that offer `submit` are all asked before the first answer is awaited.

An expert that is lost (`ExpertLost`) is masked in the logits and the step is done over: what is
left is exactly the flow of the remaining data. A row that had already committed to it (probability
above 1/2, or its cluster) is noted in `committed`; `sampling.sample` starts such rows again.
McAllister et al., arXiv 2501.05450.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from decent.errors import ConfigError, ExpertLost, ModelError, RuntimeFault
from decent.experts.prediction import Model
from decent.experts.strategy import START, Draw, Strategy, probabilities, strategy


class Ensemble(nn.Module):
    """Experts behind one model's signature: (x [N, *S], t [N], condition) → velocity [N, *S].

    `router` gives logits [N, K]; without one the strategy must do with `pi` [K], the shares of
    the clusters. `floor` is the least live weight of a row once experts are lost.
    """

    def __init__(
        self,
        experts: Sequence[Model],
        router: Model | None,
        pi: Sequence[float] | None = None,
        strategy: str | Strategy = "nucleus:0.9",
        floor: float = 0.05,
    ) -> None:
        super().__init__()
        ...

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, halves: bool = False
    ) -> Tensor:
        """The velocity; with `halves` the second N/2 rows are the unconditional half of guidance
        and use the experts that the first half chose.

        Raises RuntimeFault when too little live weight is left or an expert's answer is not finite,
        ModelError for an answer of another shape, or a router of another K.
        """
        raise NotImplementedError

    def weights(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """[N, K], rows summing to 1."""
        raise NotImplementedError
