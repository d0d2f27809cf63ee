"""Any task as an `Objective`: the gradients of many workers' models in one call of torch.func.vmap.

The parameters of k workers are views of rows [k, d]; buffers (norm statistics) are kept for each
worker. Batches are the very ones that each worker's `Trainer` draws. Data sets of tensors that
workers have in common are held once. The loss has to be a function of the model and the batch
alone. Where vmap cannot follow it, the workers are taken one after the other, and `one_by_one` is
true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_map
from torch.utils.data import TensorDataset, default_collate

from decent.errors import TaskError
from decent.learning.batches import indices, share
from decent.learning.batchnorm import has_batch_norm, load_moments, moments, recalibrate
from decent.learning.objective import Objective
from decent.learning.task import Task
from decent.learning.trainer import torch_seed
from decent.learning.vector import Layout
from decent.schedule.streams import stream

Tensors = dict[str, Tensor]
Kind = tuple[int, tuple[int, ...]]
Gradients = tuple[Tensors, tuple[Tensor, Tensors]]  # and losses, buffers
PREFIX = "model."
TILE_BYTES = 5 << 19  # parameters of the workers taken together, which stay in cache
OFTEN, TRACES = 32, 64
RECALIBRATION = 32  # batches of each worker


class Stacked(Objective):
    """`task` for `workers` workers, with the batches of a run of this seed."""

    def __init__(
        self, task: Task, workers: int, seed: int, batch_size: int, device: str = "cpu"
    ) -> None:
        self.n, self.device = workers, torch.device(device)
        torch.manual_seed(torch_seed(seed, "init"))
        self._loss = _Loss(task, task.model().to(self.device))
        self._layout = Layout.of(self._loss.model)
        self.size, self.dtype = self._layout.numel, getattr(torch, self._layout.dtype)
        self._buffers = {
            name: buffer.expand(workers, *buffer.shape).clone()
            for name, buffer in self._loss.named_buffers()
        }
        shares = [_tensors(task, worker, workers) for worker in range(workers)]
        self.samples = [len(tensors[0]) for tensors in shares]
        self._columns, self._offsets = _joined(shares, self.device)
        self._seed, self._batch_size = seed, batch_size
        self._batches = [
            _Draws(indices(count, batch_size, stream(seed, "batches", i)), offset)
            for i, (count, offset) in enumerate(zip(self.samples, self._offsets, strict=True))
        ]
        gradient = grad(self._one, has_aux=True)
        self._alone, self._together = gradient, vmap(gradient, randomness="different")
        self.one_by_one = self._proven = False
        self._seen: Counter[Kind] = Counter()
        self._traced: dict[Kind, Callable[..., Any]] = {}
        self.tile = max(16, TILE_BYTES // (self.size * self.dtype.itemsize))

    def draw(self, workers: Tensor) -> Tensor:
        """[k, batch]: rows of the joined data."""
        order = workers.cpu().numpy()
        who, counts = np.unique(order, return_counts=True)
        drawn = [
            self._batches[i].take(c) for i, c in zip(who.tolist(), counts.tolist(), strict=True)
        ]
        place = np.empty(len(order), dtype=np.int64)
        place[np.argsort(order, kind="stable")] = np.arange(len(order))
        return torch.from_numpy(np.concatenate(drawn)[place]).to(self.device)

    def gradients(
        self, points: Tensor, workers: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        batch = [column[drawn] for column in self._columns]
        buffers = {name: each.index_select(0, workers) for name, each in self._buffers.items()}
        gradients, (losses, buffers) = self._evaluate(self._views(points), buffers, batch)
        for name, each in buffers.items():
            self._buffers[name].index_copy_(0, workers, each)
        flat = torch.empty(points.shape, dtype=self.dtype, device=points.device)
        for name, part in self._views(flat).items():
            part.copy_(gradients[name])
        return flat, losses

    def skip(self, counts: Tensor) -> None:
        for each, count in zip(self._batches, counts.tolist(), strict=True):
            if count:
                each.take(count)

    def state(self) -> dict[str, Tensor]:
        return dict(self._buffers)

    def merge_norms(self, model: nn.Module, policy: str, weights: Tensor) -> None:
        """Norm statistics of the merged `model`: those pooled of the workers' batches at its
        parameters ("recalibrate"), or of the workers' own ("average")."""
        if policy == "local" or not has_batch_norm(model):
            return
        pooled = []
        for worker in range(self.n):
            self._load_buffers(worker, model)
            if policy == "recalibrate":
                recalibrate(model, self._fixed_batches(worker, RECALIBRATION), self._loss.task.loss)
            pooled.append(moments(model))
        load_moments(model, np.average(pooled, 0, weights.numpy()))

    def load(self, worker: int, point: Tensor, model: nn.Module) -> None:
        """Put `point` [d], the worker's buffers and what is not learnt into a model of the task."""
        model.load_state_dict(self._loss.model.state_dict())
        views = self._layout.views(point.detach().cpu())
        model.load_state_dict(dict(zip(self._layout.names, views, strict=True)), strict=False)
        self._load_buffers(worker, model)

    def _load_buffers(self, worker: int, model: nn.Module) -> None:
        own = {name.removeprefix(PREFIX): each[worker] for name, each in self._buffers.items()}
        model.load_state_dict(own, strict=False)

    def _fixed_batches(self, worker: int, count: int) -> list[list[Tensor]]:
        """As `Trainer.batches` has them."""
        rng = stream(self._seed, "recalibration", worker)
        drawn = indices(self.samples[worker], self._batch_size, rng)
        rows = _Draws(drawn, self._offsets[worker]).take(count)
        return [[column[torch.from_numpy(each)] for column in self._columns] for each in rows]

    def _views(self, rows: Tensor) -> Tensors:
        """The parameters of all rows [k, d], each [k, *shape]."""
        layout = self._layout
        parts = zip(layout.names, torch.split(rows, layout.sizes, 1), layout.shapes, strict=True)
        return {PREFIX + name: part.view(len(rows), *shape) for name, part, shape in parts}

    def _evaluate(self, parameters: Tensors, buffers: Tensors, batch: list[Tensor]) -> Gradients:
        inputs = (parameters, buffers, batch)
        if not self.one_by_one:
            try:
                found: Gradients = self._at_once(inputs)
                self._proven = True
                return found
            except (RuntimeError, NotImplementedError):
                if self._proven:  # vmap can follow this task: something else is wrong
                    raise
                self.one_by_one = True
        each = [
            self._alone(*tree_map(lambda tensor, k=k: tensor[k], inputs))
            for k in range(len(batch[0]))
        ]
        stacked: Gradients = tree_map(lambda *rows: torch.stack(rows), *each)
        return stacked

    def _at_once(self, inputs: tuple[Tensors, Tensors, list[Tensor]]) -> Any:
        """The gradients of all. Where as many workers come often, the tensor operations are traced
        once and replayed, which saves what vmap costs at every call."""
        first = next(iter(inputs[0].values()))
        kind = (len(first), first.stride())  # a trace is good for one arrangement in memory
        self._seen[kind] += 1
        if self._seen[kind] >= OFTEN and kind not in self._traced and len(self._traced) < TRACES:
            try:
                self._traced[kind] = _aside(make_fx(lambda *each: self._together(*each)), inputs)
            except (RuntimeError, NotImplementedError):
                self._traced[kind] = self._together
        if not self._proven:
            _aside(self._together, inputs)  # what fails half-way must not leave anything behind
        run: Callable[..., Any] = self._traced.get(kind, self._together)
        return run(*inputs)

    def _one(
        self, parameters: Tensors, buffers: Tensors, batch: list[Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensors]]:
        loss = functional_call(self._loss, {**parameters, **buffers}, (batch,))
        return loss, (loss.detach(), buffers)


def _aside(function: Callable[..., Any], inputs: tuple[Tensors, Tensors, list[Tensor]]) -> Any:
    """What it returns, with nothing changed: neither buffers nor torch's generator."""
    (parameters, buffers, batch), random = inputs, torch.get_rng_state()
    try:
        return function(parameters, {name: each.clone() for name, each in buffers.items()}, batch)
    finally:
        torch.set_rng_state(random)


class _Loss(nn.Module):
    """The task's loss of its model, as a module, so that parameters can be passed in."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = task, model.train()

    def forward(self, batch: list[Tensor]) -> Tensor:
        return self.task.loss(self.model, batch)


class _Draws:
    """The endless batches of one worker, as rows of the joined data."""

    def __init__(self, drawn: Iterator[NDArray[np.int64]], offset: int) -> None:
        self._drawn, self._offset = drawn, offset

    def take(self, count: int) -> NDArray[np.int64]:
        return np.stack(list(islice(self._drawn, count))) + self._offset


def _tensors(task: Task, worker: int, workers: int) -> tuple[Tensor, ...]:
    """A worker's data as tensors whose rows are samples; other data sets are read whole, once."""
    data: Any = share(task, worker, workers)
    if isinstance(data, TensorDataset):
        return data.tensors
    whole = default_collate([data[k] for k in range(len(data))])
    if isinstance(whole, (tuple, list)) and all(isinstance(part, Tensor) for part in whole):
        return tuple(whole)
    raise TaskError(
        f"the data of worker {worker} in task {task.name!r} collates to {type(whole).__name__}",
        "samples that are tuples of tensors or numbers",
        'use simulation.fidelity = "network", which takes any data set',
    )


def _joined(
    shares: list[tuple[Tensor, ...]], device: torch.device
) -> tuple[list[Tensor], list[int]]:
    """The distinct data sets one below the other, and at which row each worker's begins."""
    places: dict[tuple[Any, ...], int] = {}
    kept, offsets, rows = list[tuple[Tensor, ...]](), list[int](), 0
    for tensors in shares:
        key = tuple((each.data_ptr(), each.shape, each.stride()) for each in tensors)
        if key not in places:
            places[key] = rows
            kept.append(tensors)
            rows += len(tensors[0])
        offsets.append(places[key])
    columns = zip(*kept, strict=True)
    return [
        torch.cat(each).to(device) if len(kept) > 1 else each[0].to(device) for each in columns
    ], offsets
