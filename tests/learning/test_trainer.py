"""One worker's training: reproducible, apart from its neighbours, and sound in its batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from decent.errors import RuntimeFault, TaskError
from decent.learning import Layout, Trainer, bind, to_vector
from decent.learning.baselines import all_reduce
from decent.learning.batches import endless
from decent.learning.digits import Digits
from decent.schedule.streams import stream


class Dropped(Digits):
    """Digits with dropout, and a data set that is no TensorDataset."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10))

    def data(self, worker: int, workers: int) -> Dataset[Any]:
        return Listed(super().data(worker, workers))


class Listed(Dataset[Any]):
    def __init__(self, inner: TensorDataset) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


class Plain:
    """A task of the required methods alone; its loss is what it is told."""

    name = "plain"

    def __init__(self, value: float = 1.0, samples: int = 4) -> None:
        self.value, self.samples = value, samples

    def model(self) -> nn.Module:
        return nn.Linear(1, 1)

    def data(self, worker: int, workers: int) -> Dataset[Any]:
        return TensorDataset(torch.ones(self.samples, 1))

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return model(batch[0]).sum() * self.value

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {"draw": float(torch.rand(()))}


@pytest.mark.parametrize("kind", [Digits, Dropped])
def test_trainers_in_one_process_do_not_disturb_each_other(kind: type[Digits]) -> None:
    alone = Trainer(kind(), 1, 4, 7, 16)
    expected = [alone.step() for _ in range(6)]
    outside = torch.get_rng_state()
    first, other = Trainer(kind(), 1, 4, 7, 16), Trainer(kind(), 2, 4, 7, 16)
    losses = []
    for _ in range(6):
        losses.append(first.step())
        other.step()
        first.evaluate()
        first.batches(2)
    assert losses == expected
    assert torch.equal(torch.get_rng_state(), outside)
    np.testing.assert_array_equal(to_vector(first.model), to_vector(alone.model))


def test_initialisation_is_common_or_own() -> None:
    vectors = {
        (init, worker): to_vector(Trainer(Digits(), worker, 4, 0, 8, init=init).model)
        for init in ("common", "own")
        for worker in (0, 1)
    }
    assert np.array_equal(vectors["common", 0], vectors["common", 1])
    assert not np.array_equal(vectors["own", 0], vectors["own", 1])
    assert not np.array_equal(vectors["common", 0], to_vector(Trainer(Digits(), 0, 4, 1, 8).model))


def test_a_bound_trainer_trains_alike() -> None:
    free, bound = Trainer(Digits(), 0, 4, 0, 16), Trainer(Digits(), 0, 4, 0, 16)
    vector = np.zeros(Layout.of(bound.model).numel, np.float32)
    bind(bound.model, vector)
    for _ in range(5):
        assert free.step() == bound.step()
    np.testing.assert_array_equal(vector, to_vector(free.model))
    assert bound.steps == 5
    assert bound.samples == len(Digits().data(0, 4))


@pytest.mark.parametrize(("samples", "size"), [(10, 4), (3, 8), (5, 5), (1, 2)])
def test_batches_are_full_and_even(samples: int, size: int) -> None:
    data = TensorDataset(torch.arange(samples), torch.arange(samples) * 10)
    drawn = list(islice(endless(data, size, stream(0, "x")), 20))
    assert all(len(part) == size for batch in drawn for part in batch)
    assert all(torch.equal(a * 10, b) for a, b in drawn)
    counts = np.bincount(torch.cat([a for a, _ in drawn]).numpy(), minlength=samples)
    assert counts.max() - counts.min() <= 1
    listed = list(islice(endless(Listed(data), size, stream(0, "x")), 20))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(drawn, listed, strict=True))


def test_recalibration_batches_are_always_the_same() -> None:
    trainer = Trainer(Digits(), 0, 4, 0, 16)
    first = trainer.batches(3)
    trainer.step()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, trainer.batches(3), strict=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_the_step(value: float) -> None:
    trainer = Trainer(Plain(), 3, 4, 0, 2)
    trainer.step()
    before = to_vector(trainer.model)
    trainer.task.value = value
    with pytest.raises(RuntimeFault, match=r"worker 3, step 1: the loss is .*learning rate"):
        trainer.step()
    np.testing.assert_array_equal(to_vector(trainer.model), before)


def test_evaluation_draws_beside_training() -> None:
    trainer = Trainer(Plain(), 0, 1, 0, 2)
    assert trainer.evaluate() == trainer.evaluate()


def test_data_that_cannot_be_drawn_from_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __len__(self) -> int:
            return 4

        def __iter__(self) -> Iterator[Any]:
            return iter(range(4))

    class Streamed(Plain):
        def data(self, worker: int, workers: int) -> Dataset[Any]:
            return Stream()

    for task in (Plain(samples=0), Streamed()):
        with pytest.raises(TaskError, match="worker 0 in task 'plain'"):
            Trainer(task, 0, 1, 0, 2)
    with pytest.raises(TaskError, match="batch_size = 0"):
        Trainer(Plain(), 0, 1, 0, 0)


def test_lockstep_is_one_step_on_the_batches_joined() -> None:
    task, workers = Digits(), 4
    alone = Trainer(task, 0, workers, 0, 8)
    model, optimizer = alone.model, alone.optimizer
    streams = [endless(task.data(k, workers), 8, stream(0, "batches", k)) for k in range(workers)]
    for _ in range(5):
        X, y = (torch.cat(parts) for parts in zip(*map(next, streams), strict=True))
        optimizer.zero_grad()
        cross_entropy(model(X), y).backward()
        optimizer.step()
    measures = all_reduce([Trainer(task, k, workers, 0, 8) for k in range(workers)], steps=5)
    assert measures == pytest.approx(task.evaluate(model), rel=1e-4)
