"""One worker's training: seeds, model, optimizer, its share of the data, and one step at a time.

    trainer = Trainer(task, worker, workers, seed, batch_size)
    layout = bind(trainer.model, vector)        # optional, before the first step or between steps
    while …: loss = trainer.step()

With `init="common"` all workers start from the same weights, with "own" each from its own; shards
and batches depend on (seed, worker) alone. A trainer has its own state of torch's global CPU
generator, put in place while it works (2 µs a step): two in one process do not disturb each other,
nor the caller. The CUDA, NumPy and Python generators are shared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch

from decent.config import Config
from decent.errors import RuntimeFault
from decent.learning.batches import endless, share
from decent.learning.optimizer import make_optimizer
from decent.learning.randomness import OwnRandomness
from decent.learning.task import Task, load
from decent.schedule.streams import stream

LR = 0.1  # of the SGD that a task without `optimizer` gets


class Trainer(OwnRandomness):
    """A model on its way, and what moves it."""

    def __init__(
        self,
        task: Task,
        worker: int,
        workers: int,
        seed: int,
        batch_size: int,
        init: Literal["common", "own"] = "common",
        optimizer: Callable[[torch.nn.Module], torch.optim.Optimizer] | None = None,
    ) -> None:
        self.task, self.worker, self.steps = task, worker, 0
        self._seed, self._batch_size = seed, batch_size
        self._random = torch.get_rng_state()
        self._data = share(task, worker, workers)
        self.samples = len(self._data)  # type: ignore[arg-type]
        self._go_on(drawn=0)
        with self._own_randomness():
            torch.manual_seed(torch_seed(seed, "init", *([worker] if init == "own" else [])))
            self.model = task.model()
            torch.manual_seed(torch_seed(seed, "torch", worker))
            make = optimizer if optimizer is not None else getattr(task, "optimizer", _sgd)
            self.optimizer: torch.optim.Optimizer = make(self.model)
        self.model.train()

    def step(self) -> float:
        """One local optimizer step; the loss before it."""
        return self.update([self.next_batch()])

    def next_batch(self) -> Any:
        """The next batch of this worker's share."""
        self._drawn += 1
        return next(self._stream)

    def state_dict(self) -> dict[str, Any]:
        """Where it is, but for model and optimizer."""
        return {"steps": self.steps, "drawn": self._drawn, "random": self._random}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there, with the same batches as without a break."""
        self.steps, self._random = state["steps"], state["random"]
        self._go_on(state["drawn"])

    def skip(self, steps: int) -> None:
        """Leave out so many steps, and their batches."""
        self.steps = steps
        self._go_on(steps)

    def _go_on(self, drawn: int) -> None:
        """After so many batches."""
        rng = stream(self._seed, "batches", self.worker)
        self._drawn, self._stream = drawn, endless(self._data, self._batch_size, rng, drawn)

    def update(self, batches: Sequence[Any]) -> float:
        """One optimizer step along the mean of the gradients on `batches`; their mean loss."""
        total = 0.0
        with self._own_randomness():
            self.optimizer.zero_grad()
            for batch in batches:
                loss = self.task.loss(self.model, batch) / len(batches)
                total += self._finite(loss.item())
                loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
        self.steps += 1
        return total

    def evaluate(self) -> dict[str, float]:
        """The task's measures of the model as it is; training goes on undisturbed."""
        with self._own_randomness():
            state = torch.get_rng_state()
            measures = self.task.evaluate(self.model)
            torch.set_rng_state(state)
        return measures

    def batches(self, count: int) -> list[Any]:
        """`count` batches of the worker's share, always the same, beside those it trains on."""
        rng = stream(self._seed, "recalibration", self.worker)
        return list(islice(endless(self._data, self._batch_size, rng), count))

    def keep(self) -> None:
        """Have the task keep the model as it is now, at the end of all, if it does."""
        if hasattr(self.task, "keep"):
            self.task.keep(self.model, self.steps)

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise RuntimeFault(
                f"worker {self.worker}, step {self.steps}: the loss is {loss}. The step was not "
                "taken; lower the learning rate, clip gradients or look at the data"
            )
        return loss

    @classmethod
    def of(cls, config: Config, worker: int, workers: int) -> Trainer:
        """Worker `worker`'s trainer as a run's configuration describes it."""
        task = load(config.task.name, config.seed, **config.task.options)
        if config.apart and hasattr(task, "alone"):
            alone: Trainer = task.alone(config, worker, workers)
            return alone
        chosen = config.optimizer
        make = None if chosen is None else partial(make_optimizer, chosen)
        return cls(task, worker, workers, config.seed, config.batch_size, config.init, make)


def torch_seed(seed: int, *names: str | int) -> int:
    """A seed for torch."""
    return int(stream(seed, *names).integers(2**63))


def _sgd(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR)
