"""Classification of tensors that fit in memory: what the ready tasks have in common.

Inputs X are float32 of shape [samples, ...], labels y int64 of shape [samples]. The loss is the
mean cross-entropy of a batch (nats); the measures are accuracy (0 to 1) and loss on the test set.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from decent.errors import TaskError
from decent.learning.modes import evaluation
from decent.learning.shards import Indices

CHUNK = 2048

Share = Indices | slice  # of the training samples; a slice shares their memory


class Labelled(NamedTuple):
    """Samples and their labels."""

    X: Tensor
    y: Tensor


class Classification(ABC):
    """A task but for its model and its data."""

    train: Labelled
    test: Labelled

    _dealt: tuple[int, Sequence[Share]] = (0, ())  # to how many workers, and what

    @abstractmethod
    def shards(self, workers: int) -> Sequence[Share]:
        """Which training samples each worker has."""

    def data(self, worker: int, workers: int) -> TensorDataset:
        if not 0 <= worker < workers:
            raise TaskError(f"worker {worker} of {workers}", f"0 to {workers - 1}")
        if self._dealt[0] != workers:
            self._dealt = workers, self.shards(workers)
        share = self._dealt[1][worker]
        return TensorDataset(self.train.X[share], self.train.y[share])

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        device = next(model.parameters()).device
        X, y = batch
        return cross_entropy(model(X.to(device)), y.to(device))

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        device = next(model.parameters()).device
        right = loss = 0.0
        with evaluation(model):
            parts = (torch.split(tensor, CHUNK) for tensor in self.test)
            for X, y in zip(*parts, strict=True):
                scores, labels = model(X.to(device)), y.to(device)
                right += float((scores.argmax(1) == labels).sum())
                loss += float(cross_entropy(scores, labels, reduction="sum"))
        return {"accuracy": right / len(self.test.y), "loss": loss / len(self.test.y)}


def check_positive(task: str, **options: float) -> None:
    """Refuse what is not above 0, NaN included."""
    for key, value in options.items():
        if not value > 0:
            raise TaskError(f"option {key} = {value} of task {task!r}", "a value above 0")
