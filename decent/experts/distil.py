"""One dense student of all experts.

    L = E‖v(x_t, t, c) − u^k(x_t, t, c)‖² / d,     k the true cluster of x₀

The flow-matching loss with the target u(x_t | x₀) replaced by the answer of the expert that knows
the sample. Its minimiser is Σ_k p(k | x_t, t, c)·u^k(x_t, t, c), the full ensemble under the exact
router, of which nothing is needed; the target varies less than the conditional velocity does
(McAllister et al., arXiv 2501.05450, §3.4). Conditions are dropped for both alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from decent.experts.devices import at, device_of
from decent.experts.flow import draw_times, dropped
from decent.experts.path import LINEAR, noised
from decent.experts.prediction import Model
from decent.experts.settings import TrainingTable


@dataclass(frozen=True)
class Taught:
    """What a student descends on: samples x [n, *Z], their clusters [n], and their labels [n] where
    it is given them. All is drawn from torch's global generator, on the CPU; the experts are asked
    where the module is."""

    x: Tensor
    clusters: Tensor
    labels: Tensor | None
    experts: Sequence[Model]
    table: TrainingTable

    def __call__(self, module: nn.Module) -> Tensor:
        rows = torch.randint(len(self.x), (self.table.batch_size,))
        x, labels = self.x[rows], None if self.labels is None else self.labels[rows]
        t = draw_times(len(x), self.table.times)
        condition = dropped(labels, self.table.drop_condition)
        x_t = noised(LINEAR, x, torch.randn_like(x), t)
        asked = at(device_of(module), x_t, t, condition)
        return mse_loss(module(*asked), self._target(rows, *asked))

    @torch.no_grad()
    def _target(self, rows: Tensor, x_t: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Each row's velocity by its own expert."""
        clusters, target = self.clusters[rows], torch.empty_like(x_t)
        for k, expert in enumerate(self.experts):
            own = (clusters == k).nonzero()[:, 0].to(x_t.device)
            if len(own):
                given = None if condition is None else condition[own]
                target[own] = expert(x_t[own], t[own], given)
        return target
