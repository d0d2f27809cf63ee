"""The training process's part of a checkpoint: optimizer, buffers, random numbers, and whatever
else is given to `Gossip.keep`. Taken between two steps, written while training goes on.

The parameters themselves are in the communicator's part, where there is one. Files are read by
`torch.load(weights_only=True)`: data, never code; what that would refuse is refused when it is to
be kept, not when it is needed.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from decent.errors import ConfigError, ModelError
from decent.folder import Journal, durable, worker_folder
from decent.runtime.checkpoint import Checkpoints, Writer
from decent.runtime.link import Partner
from decent.runtime.world import World
from decent.worker import Span

PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
PATIENCE_S = 30.0
ALL = 2**62
"""bytes"""


class Stateful(Protocol):
    """As optimizers, schedulers and modules of torch are."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> Any: ...


class Keeper:
    """Takes and restores this part for the `model` and `optimizer` of one of `workers`. In a world
    without a folder nothing is kept. The `journal` of metrics and what was `measured` go along."""

    def __init__(self, world: World, workers: int, model: nn.Module, optimizer: Optimizer) -> None:
        self._model, self._optimizer = model, optimizer
        self._every = world.config.runtime.checkpoint_every
        folder, path, self._files = world.folder, None, None
        if folder is not None:
            self._files = Checkpoints(folder, world.me, workers)
            path = worker_folder(folder, world.me) / "metrics.jsonl"
        self._kept: dict[str, Stateful] = {}
        self._writer = Writer()
        self.pauses_s: list[float] = []
        self.found: dict[str, Any] = {}
        self.span = world.span or Span(0, 0)
        if self._files is not None and world.span is not None:
            self.found = _load(self._files, world.span)
        elif self._files is not None and world.rejoins:
            self._files.discard(lambda span: True)
        self.step = int(self.found.get("steps", 0))  # of the latest
        self.measured: dict[str, Any] = self.found.get("measured", {})
        self.journal = Journal(path, ALL if world.rejoins else self.found.get("written", 0))
        self._partner: Partner | None = None
        self._ready = False

    def keep(self, objects: dict[str, Stateful]) -> None:
        """Also these from now on; what was kept of them is put back."""
        for name, each in objects.items():
            if name in self._kept:
                raise ConfigError(f"keep({name}=…) a second time", "one object for each name")
            if "kept" in self.found:
                if name not in self.found["kept"]:
                    raise ConfigError(
                        f"keep({name}=…), and the checkpoint has none",
                        f"one of {', '.join(self.found['kept']) or 'nothing'}",
                        "resume with the script that the run was started with",
                    )
                each.load_state_dict(self.found["kept"][name])
            self._kept[name] = each

    def begin(self, partner: Partner | None) -> None:
        """Training begins: random generators go on from where they were, and checkpoints are due
        when the communicator says so, or every so many steps if there is none."""
        if self.found:
            put_back(self.found["random"])
        self._partner = partner
        self._ready = self._files is not None

    def check(self, steps: int) -> None:
        """Take a checkpoint if one is due. May be called while one is taken."""
        if self._ready and steps >= self._due():
            self._ready = False
            self._take(steps)
            self._ready = True

    def _due(self) -> float:
        if self._partner is not None:
            return self._partner.board.cut_step
        return self.step + self._every if self._every else math.inf

    def _take(self, steps: int) -> None:
        """Now. The communicator copies its part while we copy ours."""
        assert self._files is not None
        start_s, partner = time.perf_counter(), self._partner
        if partner is not None:
            partner.say(do="cut")
        tree = {
            "steps": steps, "written": self.journal.length(), "measured": dict(self.measured),
            "optimizer": _copied(self._optimizer.state_dict(), "the optimizer's state"),
            "model": _copied(self._beside(), "the model's state"),
            "kept": {name: _copied(e.state_dict(), name) for name, e in self._kept.items()},
            "random": random_states(),
        }  # fmt: skip
        self.step, agreed = steps, (self.span.cut, self.span.cut + 1)
        if partner is not None:
            agreed = partner.hear("cut", PATIENCE_S)["cut"]
            if agreed is None:  # the merge has begun
                return
        self.span = Span(*agreed)
        self.pauses_s.append(time.perf_counter() - start_s)
        self._writer.put(partial(_save, self._files, self.span, tree))

    def restore(self) -> None:
        """Put back what was found, but for what `keep` will ask for, and random numbers: last."""
        if self.found:
            self._optimizer.load_state_dict(self.found["optimizer"])
            self._model.load_state_dict(self.found["model"], strict=False)

    def close(self) -> None:
        self._writer.close(PATIENCE_S)

    def report(self) -> dict[str, float] | None:
        """How many were taken, and how long training waited for one, in milliseconds."""
        if not self.pauses_s:
            return None
        median, most = statistics.median(self.pauses_s), max(self.pauses_s)
        return {"taken": len(self.pauses_s), "median_ms": 1e3 * median, "max_ms": 1e3 * most}

    def _beside(self) -> dict[str, Any]:
        """The model's state; without its parameters where these are the communicator's."""
        state = self._model.state_dict(keep_vars=True)
        return {
            name: value
            for name, value in state.items()
            if self._partner is None or not (isinstance(value, Tensor) and value.requires_grad)
        }


def _save(files: Checkpoints, span: Span, tree: dict[str, Any]) -> None:
    with durable(files.path(span, "training")) as file:
        torch.save(tree, file)
    files.prune()


def _load(files: Checkpoints, span: Span) -> dict[str, Any]:
    files.discard(lambda each: each.cut > span.cut)
    path = files.path(span, "training")
    try:
        tree: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(
            f"{path}: {error}", "a checkpoint that can be read",
            "remove the file: an older checkpoint will be taken",
        ) from error  # fmt: skip
    return tree


def _copied(value: Any, where: str) -> Any:
    """A copy in memory of the CPU. Raises ModelError for what could not be read again."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, dict):
        return {_copied(k, where): _copied(each, f"{where}.{k}") for k, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)([_copied(each, where) for each in value])
    raise ModelError(
        f"{where} holds a {type(value).__name__}",
        "tensors, numbers, text, and lists and dictionaries of them",
        "keep it in one of these forms, such as torch.from_numpy(array)",
    )


def random_states() -> dict[str, Any]:
    """Of Python's, NumPy's and torch's own generators."""
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    inner = {**legacy["state"], "key": legacy["state"]["key"].tolist()}
    used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": random.getstate(),
        "numpy": {**legacy, "state": inner},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if used else [],
    }


def put_back(states: dict[str, Any]) -> None:
    """Where all generators were."""
    random.setstate(states["python"])
    inner = states["numpy"]["state"]
    key = np.array(inner["key"], np.uint32)
    np.random.set_state({**states["numpy"], "state": {**inner, "key": key}})
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
