"""One expert trained by several workers, which share it by gossip: a task for `decent launch`.

    [task]
    name = "decent.experts.task:Expert"
    folder = "runs/ensemble"            what `decent experts partition` wrote
    expert = 3

The workers divide the samples of the expert's cluster, exchange models along the topology, are
merged once at the end, and the merged model is stored as `expert_3` of the ensemble. Network,
times, learning rate and dropped conditions are those of the ensemble's settings; steps and batch
size are those of the launch, and weights are not averaged over time: the merge does that.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from decent.errors import TaskError
from decent.experts import networks, store
from decent.experts.evaluation import held_out
from decent.experts.flow import Flow
from decent.experts.metrics import PairedLoss, multiply_adds
from decent.experts.partition import Divided, reopen
from decent.experts.store import Record
from decent.experts.work import labels
from decent.learning.modes import evaluation
from decent.learning.shards import uniform


class Expert:
    """An expert of an ensemble's folder, shared by all workers."""

    name: ClassVar[str] = "expert"

    def __init__(self, folder: str, expert: int, seed: int = 0) -> None:
        self.folder, self.expert, self.seed = Path(folder).resolve(), expert, seed
        self._divided.manifest.indices(expert)

    @cached_property
    def _divided(self) -> Divided:
        return reopen(self.folder)

    @cached_property
    def _flow(self) -> Flow:
        which = self._divided.manifest.indices(self.expert)
        x, given = self._divided.latents(which), labels(self._divided, which)
        return Flow(x, given, self._divided.settings.expert)

    @property
    def _classes(self) -> int:
        return 0 if self._flow.labels is None else self._divided.manifest.classes

    def model(self) -> nn.Module:
        table, shape = self._divided.settings.expert, self._divided.latent.shape
        return networks.build(table.network, shape, self._classes, **table.options)

    def data(self, worker: int, workers: int) -> TensorDataset:
        """A part of the expert's samples, and of their labels where it is given them."""
        if not 0 <= worker < workers:
            raise TaskError(f"worker {worker} of {workers}", f"0 to {workers - 1}")
        share = torch.from_numpy(uniform(len(self._flow.x), workers, self.seed)[worker])
        given = self._flow.labels
        return TensorDataset(self._flow.x[share], *([] if given is None else [given[share]]))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        x, *given = batch
        return self._flow.loss(model, x, given[0] if given else None)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """The paired loss on held-out samples of its cluster, where there are any."""
        with evaluation(model):
            return {"loss": self._paired(model).mean().item()}

    @cached_property
    def _paired(self) -> PairedLoss:
        try:
            x, given, clusters = held_out(self._divided, self.folder)
        except TaskError:
            x, given, clusters = self._flow.x, self._flow.labels, None
        if clusters is not None:
            own = clusters == self.expert
            x, given = x[own], None if given is None else given[own]
        return PairedLoss(x, given, self.seed)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        table = self._divided.settings.expert
        return torch.optim.AdamW(model.parameters(), lr=table.lr, weight_decay=table.weight_decay)

    def keep(self, model: nn.Module, steps: int) -> None:
        """Store the merged model, after so many steps of each worker."""
        table, shape = self._divided.settings.expert, self._divided.latent.shape
        condition = torch.zeros(1, dtype=torch.int64) if self._classes else None
        record = Record(
            network=table.network, shape=shape, classes=self._classes, options=table.options,
            steps=steps, seed=self.seed, multiply_adds=multiply_adds(model, shape, condition),
        )  # fmt: skip
        store.save(self.folder / store.expert(self.expert), model, record)
