"""Endless batches: every batch has exactly `batch_size` samples, whatever the share's size.

The samples are an endless sequence of permutations, one after the other, cut into batches: all are
seen equally often, none is dropped, and a share smaller than a batch fills it by repeating. Tensors
in memory are indexed directly; any other data set goes through torch's DataLoader.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from decent.errors import TaskError
from decent.learning.task import Task


def share(task: Task, worker: int, workers: int) -> Dataset[Any]:
    """That worker's data, refused where batches cannot be drawn from it."""
    data = task.data(worker, workers)
    indexed = hasattr(data, "__getitem__") and not isinstance(data, IterableDataset)
    if not (indexed and hasattr(data, "__len__") and len(data)):
        raise TaskError(
            f"the data of worker {worker} in task {task.name!r} is {data!r}",
            "a data set with a length of 1 or more and items 0, 1, …",
        )
    return data


def endless(
    data: Dataset[Any], batch_size: int, rng: np.random.Generator, skip: int = 0
) -> Iterator[Any]:
    """Batches of `data` for ever, in an order that depends on `rng` alone; not the first few."""
    if batch_size < 1:
        raise TaskError(f"batch_size = {batch_size}", "1 or more")
    drawn = islice(indices(len(data), batch_size, rng), skip, None)  # type: ignore[arg-type]
    if isinstance(data, TensorDataset):
        return _tensor_batches(data.tensors, drawn)
    own = torch.Generator().manual_seed(0)  # a loader seeds its workers: not from the global state
    return iter(DataLoader(data, batch_sampler=map(list, drawn), generator=own))


def _tensor_batches(
    tensors: tuple[torch.Tensor, ...], drawn: Iterator[NDArray[np.int64]]
) -> Iterator[list[torch.Tensor]]:
    for chosen in map(torch.from_numpy, drawn):
        yield [tensor[chosen] for tensor in tensors]


def indices(samples: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    waiting = np.empty(0, dtype=np.int64)
    while True:
        while len(waiting) < batch_size:
            waiting = np.concatenate([waiting, rng.permutation(samples)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]
