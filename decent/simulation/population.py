"""The workers of a configuration as rows of one tensor: their objective, where they start, how they
step, and what becomes of their models. Shared by the ideal engine and the round-based methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decent.config import Config
from decent.errors import ConfigError
from decent.learning import save_model
from decent.learning.local import LocalOptimizer, local_optimizer
from decent.learning.objective import Objective, starting_points
from decent.learning.optimizer import make_optimizer
from decent.learning.settle import settle
from decent.learning.stacked import Stacked
from decent.learning.task import load

PART = 256
MEASURED = 64
"""Local models that are measured at the end, at most: evenly spaced among the workers."""


class Population:
    """n workers of `config`, and as many more for each further replica."""

    def __init__(self, config: Config, out: Path | None) -> None:
        self.topology = config.make_topology()
        self.n, self.replicas, self.out = self.topology.n, config.simulation.replicas, out
        self.config = config = settle(config, self.n, out)
        self.task = load(config.task.name, config.seed, **config.task.options)
        self.objective = self._objective()

    def starts(self) -> Tensor:
        """[replicas · n, d]: replica r starts as a run of seed `seed + r` does."""
        seeds = range(self.config.seed, self.config.seed + self.replicas)
        init = self.config.init
        each = [starting_points(self.task, self.n, seed, init) for seed in seeds]
        return torch.cat(each) if len(each) > 1 else each[0]

    def optimizer(self, points: Tensor) -> LocalOptimizer:
        """What each worker's trainer would step with."""
        model = self.task.model()
        own = getattr(self.task, "optimizer", None)
        if self.config.optimizer is not None:
            rule = make_optimizer(self.config.optimizer, model)
        else:
            rule = own(model) if own else torch.optim.SGD(model.parameters(), lr=0.1)
        return local_optimizer(rule, len(points), points)

    def results(
        self, points: Tensor, steps: Tensor, losses: Tensor, stats: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """What became of the workers of the first replica; measures for some of them if many."""
        chosen = set(np.linspace(0, self.n - 1, min(self.n, MEASURED)).round().astype(int).tolist())
        return [
            {
                "id": me, "steps": int(steps[me]), "loss": float(losses[me]),
                "parameters": self.objective.size, "stats": stats[me],
                "metrics": self.task.evaluate(self.model(points[me], me)) if me in chosen else {},
            }
            for me in range(self.n)
        ]  # fmt: skip

    def model(self, point: Tensor, worker: int) -> nn.Module:
        """A model of the task with these parameters."""
        model = self.task.model()
        if isinstance(self.objective, Stacked):
            self.objective.load(worker, point, model)
        else:
            with torch.no_grad():
                next(model.parameters()).copy_(point)
        return model

    def merge(self, points: Tensor) -> dict[str, float]:
        """The weighted mean of the first replica's models: saved, and its measures."""
        samples = getattr(self.objective, "samples", [1] * self.n)
        merge = self.config.make_merge()
        weights = torch.tensor([merge.weight(count) for count in samples], dtype=torch.float64)
        shares = (weights / weights.sum()).to(points)
        model = self.model(shares @ points[: self.n], 0)
        if isinstance(self.objective, Stacked):
            self.objective.merge_norms(model, self.config.merge.norm_statistics, weights)
        if self.out is not None:
            save_model(self.out / "merged.safetensors", model, {"steps": str(self.config.steps)})
        return self.task.evaluate(model)

    def _objective(self) -> Objective:
        config, task = self.config, self.task
        if hasattr(task, "objective"):
            found: Objective = task.objective(self.n)
            return found
        if self.replicas > 1:
            raise ConfigError(
                f"simulation.replicas = {self.replicas} with task {task.name!r}",
                "1, or a convex task (ridge, logistic, consensus)",
                "run it with several seeds instead",
            )
        return Stacked(task, self.n, config.seed, config.batch_size, config.simulation.device)


def consensus(points: Tensor) -> float:
    """Mean over the workers of ‖x_i − x̄‖²; a part at a time, as there may be many."""
    mean, parts = points.mean(0), torch.split(points, PART)
    return sum(float((part - mean).double().square().sum()) for part in parts) / len(points)
