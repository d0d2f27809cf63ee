"""One network's training: the same to the bit whatever else runs, and whether broken off or not.

    training = Training(module, objective, table, seed, "expert_3")
    training.run(checkpoint=Path("expert_3.safetensors"))
    store.save(folder, training.trained(), record)

An objective maps the module to a loss and draws what it needs, batch, times and noise, from torch's
global generator; the training has its own state of it, seeded by (seed, name), and puts it in place
for each step. AdamW; learning rate warm-up, stable, linear decay; the gradient's norm is clipped;
weights are averaged (`average`). Parameters, gradients and moments are one vector each, so that a
step costs few kernels; they are on the training's device, to which objectives move their batches.
All is drawn on the CPU, but for what a module itself draws elsewhere, such as dropout. The number
of torch's threads matters to rounding: use the same, one as a rule. A checkpoint is one safetensors
file, complete or absent, and may go on on another device.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from decent.errors import ConfigError, ModelError, RuntimeFault
from decent.experts.average import Average
from decent.experts.settings import TrainingTable
from decent.folder import durable
from decent.learning import Layout
from decent.learning.randomness import OwnRandomness
from decent.learning.trainer import torch_seed

Objective = Callable[[nn.Module], Tensor]
EVERY_S = 10.0  # between checkpoints
SMOOTH = 0.99  # of the loss that is reported
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # of AdamW
AGAIN = "train it --again, from the start"


class Training(OwnRandomness):
    """`module` on its way, moved to `device`. Raises ModelError for one that has nothing to
    learn."""

    def __init__(
        self,
        module: nn.Module,
        objective: Objective,
        table: TrainingTable,
        seed: int,
        name: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.module, self.objective, self.table, self.name = module, objective, table, name
        self._model = Rounded(module) if table.precision == "bfloat16" else module
        self.steps, self.seconds = 0, 0.0
        self.loss = math.nan
        """of the latest steps"""
        self._layout = Layout.of(module.to(device))
        self._vector = _gathered(module, self._layout)
        self._average = Average(self._vector, table.ema)
        self._optimizer = torch.optim.AdamW(
            [self._vector], lr=table.lr, weight_decay=table.weight_decay, fused=True
        )
        empty = torch.zeros_like(self._vector)
        self._optimizer.state[self._vector] = {
            "step": torch.zeros((), device=device), "exp_avg": empty, "exp_avg_sq": empty.clone(),
        }  # fmt: skip
        self._random = _generator_state(torch_seed(seed, "experts", name))
        told = json.dumps([msgspec.to_builtins(table), seed, name, self._layout.digest])
        self._key = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
        module.train()

    def run(
        self,
        on_step: Callable[[Training], object] | None = None,
        checkpoint: Path | None = None,
        every_s: float = EVERY_S,
    ) -> None:
        """All steps that are left, from `checkpoint` on if it is there, else writing it at once,
        and then again every so often. What `on_step` raises ends it between two steps, with a
        checkpoint.

        Raises RuntimeFault, naming the step, for a loss or gradient that is not finite.
        """
        if checkpoint is not None:
            (self.load if checkpoint.exists() else self.save)(checkpoint)
        due_s = time.monotonic() + every_s
        while self.steps < self.table.steps:
            self.step()
            try:
                if on_step is not None:
                    on_step(self)
            except BaseException:
                if checkpoint is not None:
                    self.save(checkpoint)
                raise
            if checkpoint is not None and time.monotonic() >= due_s:
                self.save(checkpoint)
                due_s = time.monotonic() + every_s

    def step(self) -> float:
        """One optimizer step; the loss before it."""
        begun_s = time.monotonic()
        with self._own_randomness():
            loss = self._descend()
        self.steps += 1
        self._average.update(self._vector, self.steps)
        smooth = SMOOTH if self.steps > 1 else 0.0
        self.loss = loss if not smooth else smooth * self.loss + (1 - smooth) * loss
        self.seconds += time.monotonic() - begun_s
        return loss

    def trained(self) -> nn.Module:
        """A copy of the module on the CPU with the averaged weights, ready to be evaluated."""
        module = copy.deepcopy(self.module).cpu()
        kept = self._average.value if self.table.ema else self._vector
        parts = self._layout.views(kept.cpu())
        parameters = dict(module.named_parameters())
        for name, part in zip(self._layout.names, parts, strict=True):
            parameters[name].data = part.clone()
            parameters[name].grad = None
        return module.eval()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self._optimizer

    def state_dict(self) -> dict[str, Any]:
        """Where it is, but for module and optimizer."""
        facts = {"steps": self.steps, "seconds": self.seconds, "loss": self.loss, "key": self._key}
        return facts | {"average": self._average.value, "random": self._random}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there. Raises ConfigError for the state of another training."""
        if state["key"] != self._key:
            raise ConfigError(
                f"the checkpoint of {self.name} is of another training", "the same settings", AGAIN
            )
        self._average.value.copy_(state["average"])
        self._random.copy_(state["random"])
        self.steps, self.seconds, self.loss = state["steps"], state["seconds"], state["loss"]

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        facts = {"steps": self.steps, "seconds": self.seconds, "loss": self.loss, "key": self._key}
        with durable(path) as file:
            state = {name: value.cpu() for name, value in self._state().items()}
            file.write(save(state, {"decent.training": json.dumps(facts)}))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint, whatever device it was written on. Raises ModelError for a file
        that is none, ConfigError for one of another training."""
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["decent.training"])
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: {error}", "a checkpoint of this training", AGAIN) from None
        if facts["key"] != self._key:
            raise ConfigError(f"{path} is of another training", "the same settings", AGAIN)
        for name, value in self._state().items():
            value.copy_(found[name])
        self.steps, self.seconds, self.loss = facts["steps"], facts["seconds"], facts["loss"]

    def _state(self) -> dict[str, Tensor]:
        """All that a checkpoint holds, as it lies in memory."""
        state = {"parameters": self._vector, "average": self._average.value, "random": self._random}
        moments = self._optimizer.state[self._vector]
        state |= {f"optimizer.{name}": moments[name] for name in MOMENTS}
        return state | {f"buffer.{name}": value for name, value in self.module.named_buffers()}

    def _descend(self) -> float:
        gradient = self._vector.grad
        assert gradient is not None
        gradient.zero_()
        loss = self.objective(self._model)
        value = self._finite(loss.item(), "loss")
        loss.backward()  # type: ignore[no-untyped-call]
        norm = self._finite(gradient.norm().item(), "gradient's norm")
        if norm > self.table.clip:
            gradient.mul_(self.table.clip / norm)
        for group in self._optimizer.param_groups:
            group["lr"] = self.table.lr * rate(self.steps, self.table)
        self._optimizer.step()
        return value

    def _finite(self, value: float, what: str) -> float:
        if not math.isfinite(value):
            raise RuntimeFault(
                f"{self.name}, step {self.steps}: the {what} is {value}. The step was not taken; "
                "lower the learning rate, clip gradients or look at the data"
            )
        return value


class Rounded(nn.Module):
    """`module` with its matrix products in bfloat16, and answers of its arguments' type."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, *others: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            answer: Tensor = self.module(x, *others)
        return answer.to(x.dtype)


def rate(step: int, table: TrainingTable) -> float:
    """The share of the learning rate at `step` 0, 1, …: it rises over `warmup` steps, and falls
    towards 0 over the last `decay` of all (Hu et al., arXiv 2404.06395, "WSD")."""
    rising = (step + 1) / max(table.warmup, 1)
    falling = (table.steps - step) / max(table.decay * table.steps, 1)
    return min(1.0, rising, falling)


def _gathered(module: nn.Module, layout: Layout) -> Tensor:
    """The parameters as one vector that they are views of, with the gradients likewise."""
    parameters = dict(module.named_parameters())
    own = [parameters[name] for name in layout.names]
    vector = torch.cat([each.detach().flatten() for each in own])
    vector.grad = torch.zeros_like(vector)
    views = zip(own, layout.views(vector), layout.views(vector.grad), strict=True)
    for parameter, value, gradient in views:
        parameter.data, parameter.grad = value, gradient
    return vector


def _generator_state(seed: int) -> Tensor:
    return torch.Generator().manual_seed(seed).get_state()
