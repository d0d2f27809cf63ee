"""Experts trained by the workers of `decent launch`: one by all together, or one by each.

    [task]
    name = "decent.experts.task:Expert"
    folder = "runs/ensemble"            what `decent experts partition` wrote
    expert = 3

The workers divide the samples of the expert's cluster, exchange models along the topology, are
merged once at the end, and the merged model is stored as `expert_3` of the ensemble. Network,
times, learning rate and dropped conditions are those of the ensemble's settings; steps and batch
size are those of the launch, and weights are not averaged over time: the merge does that.

Without `expert`, with schedule = "never" and merge = "apart", worker k trains expert k, as `alone`
has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from decent.config import Config
from decent.errors import ConfigError, TaskError
from decent.experts import manifest, networks, store, work
from decent.experts.evaluation import held_out
from decent.experts.flow import Flow
from decent.experts.metrics import PairedLoss, multiply_adds
from decent.experts.partition import Divided, reopen
from decent.experts.store import Record
from decent.experts.training import Training
from decent.experts.work import labels
from decent.learning.modes import evaluation
from decent.learning.shards import uniform
from decent.learning.trainer import Trainer

APART = 'or schedule = "never" and merge = "apart": then each worker trains its own'


class Expert:
    """An expert of an ensemble's folder, shared by all workers; or each worker's own."""

    name: ClassVar[str] = "expert"

    def __init__(self, folder: str, expert: int | None = None, seed: int = 0) -> None:
        self.folder, self.seed, self._expert = Path(folder).resolve(), seed, expert
        if expert is not None:
            self.divided.manifest.indices(expert)

    @property
    def expert(self) -> int:
        if self._expert is None:
            raise ConfigError(
                "task.expert is not given", "the expert that all workers share", APART
            )
        return self._expert

    def alone(self, config: Config, worker: int, workers: int) -> Trainer:
        """What trains expert `worker` by itself. Raises ConfigError unless there are as many
        workers as experts, and for an optimizer, which is the ensemble's."""
        if config.optimizer is not None:
            raise ConfigError(
                "[optimizer] for experts kept apart", "none: AdamW as the ensemble's settings say"
            )
        if self._expert is not None:
            raise ConfigError(
                f"task.expert = {self._expert} of workers kept apart", "an expert for each",
                'leave it out, or set schedule = "poisson" and merge = "mean"',
            )  # fmt: skip
        count = manifest.read(self.folder).experts
        if workers != count:
            raise ConfigError(
                f"{workers} workers for the {count} experts of {self.folder}",
                "one for each expert", f"set workers = {count}",
            )  # fmt: skip
        return Alone(Expert(str(self.folder), worker, self.seed), config)

    @cached_property
    def divided(self) -> Divided:
        return reopen(self.folder)

    @cached_property
    def _flow(self) -> Flow:
        which = self.divided.manifest.indices(self.expert)
        x, given = self.divided.latents(which), labels(self.divided, which)
        return Flow(x, given, self.divided.settings.expert)

    @property
    def _classes(self) -> int:
        return 0 if self._flow.labels is None else self.divided.manifest.classes

    def model(self) -> nn.Module:
        table, shape = self.divided.settings.expert, self.divided.latent.shape
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
            x, given, clusters = held_out(self.divided, self.folder)
        except TaskError:
            x, given, clusters = self._flow.x, self._flow.labels, None
        if clusters is not None:
            own = clusters == self.expert
            x, given = x[own], None if given is None else given[own]
        return PairedLoss(x, given, self.seed)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        table = self.divided.settings.expert
        return torch.optim.AdamW(model.parameters(), lr=table.lr, weight_decay=table.weight_decay)

    def keep(self, model: nn.Module, steps: int) -> None:
        """Store the merged model, after so many steps of each worker."""
        table, shape = self.divided.settings.expert, self.divided.latent.shape
        condition = torch.zeros(1, dtype=torch.int64) if self._classes else None
        record = Record(
            network=table.network, shape=shape, classes=self._classes, options=table.options,
            steps=steps, seed=self.seed, multiply_adds=multiply_adds(model, shape, condition),
        )  # fmt: skip
        store.save(self.folder / store.expert(self.expert), model, record)


class Alone(Trainer):
    """The training of one expert by one worker: to the bit that of `decent experts train`, where
    steps and batch size, which are those of the launch, are the same too. Weights are averaged over
    time, and the seed is the ensemble's."""

    def __init__(self, task: Expert, config: Config) -> None:
        super().__init__(task, 0, 1, config.seed, config.batch_size)
        self._expert, self._name = task, store.expert(task.expert)
        self._work = work.expert(task.divided, task.expert, config.steps, config.batch_size)
        self.model, seed = work.initial(self._work, self._name), self._work.seed
        objective, table = self._work.objective, self._work.table
        self._training = Training(self.model, objective, table, seed, self._name)
        self.optimizer = self._training.optimizer

    def step(self) -> float:
        loss = self._training.step()
        self.steps = self._training.steps
        return loss

    def evaluate(self) -> dict[str, float]:
        return self._expert.evaluate(self._training.trained())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"training": self._training.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._training.load_state_dict(state["training"])

    def keep(self) -> None:
        work.keep(self._expert.folder, self._name, self._work, self._training)
