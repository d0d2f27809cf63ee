"""A whole run of the ideal engine: a configuration in, an outcome and curves out.

The folder gets `curve.jsonl`, a line for each point recorded (time in expected steps, gradients per
worker, exchanges in all, consensus distance, the objective's measures), `merged.safetensors` and,
if asked for, `checkpoint.safetensors`, from which a run goes on as if it had never stopped.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decent.config import Config
from decent.dynamics import Dynamics
from decent.errors import ConfigError
from decent.folder import Journal
from decent.learning import save_model
from decent.learning.local import local_optimizer
from decent.learning.objective import Objective, starting_points
from decent.learning.optimizer import make_optimizer
from decent.learning.settle import settle
from decent.learning.stacked import Stacked
from decent.learning.task import Task, load
from decent.learning.trainer import torch_seed
from decent.simulation.ideal.checkpoint import restore, save
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Scheduled
from decent.simulation.paces import paces

Status = dict[str, Any]
MEASURED = 64
"""Local models that are measured at the end, at most: evenly spaced among the workers."""


class Run:
    """The engine of `config`, and what is to be known of it."""

    def __init__(self, config: Config, out: Path | None) -> None:
        self.topology = config.make_topology()
        self.n, self.replicas = self.topology.n, config.simulation.replicas
        self.config = config = settle(config, self.n)
        self.out = out
        self.task = load(config.task.name, config.seed, **config.task.options)
        self.objective = _objective(self.task, config, self.n)
        self.engine = self._engine(config.make_dynamics())
        self.curve: list[dict[str, float]] = []
        self.interrupted = False

    def _engine(self, dynamics: Dynamics) -> Engine:
        config, n = self.config, self.n
        starts = [
            starting_points(self.task, n, config.seed + r, config.init)
            for r in range(self.replicas)
        ]
        points = torch.cat(starts)
        system = dynamics.system(self.topology.chi_1, self.topology.chi_2)
        stateless = self.objective.without_gradients
        source = Scheduled(
            self.topology, config.make_schedule(), seed=config.seed, steps=config.steps,
            paces=paces(config, n, unit=True), gradients=not stateless, replicas=self.replicas,
        )  # fmt: skip
        optimizer = None if stateless else local_optimizer(self._rule(), len(points), points)
        device = torch.device(config.simulation.device)
        state = initial_state(dynamics, points)
        return Engine(self.objective, system, source, state, optimizer=optimizer, device=device)

    def _rule(self) -> torch.optim.Optimizer:
        """What each worker's trainer would step with."""
        model = self.task.model()
        if self.config.optimizer is not None:
            return make_optimizer(self.config.optimizer, model)
        own = getattr(self.task, "optimizer", None)
        return own(model) if own else torch.optim.SGD(model.parameters(), lr=0.1)

    def go(self, on_status: Callable[[list[Status]], None] | None, every: float | None) -> None:
        """To the end, or until it is interrupted, which takes effect between windows."""
        journal = Journal(self.out / "curve.jsonl" if self.out else None)
        for known in self.curve:
            journal(known)
        started, start = time.monotonic(), self.engine.gradients + self.engine.exchanges
        saved = self.engine.time

        def watch() -> None:
            nonlocal saved
            if on_status:
                on_status([self.status(time.monotonic() - started, start)])
            if every and self.out and self.engine.time >= saved + every:
                saved = self.engine.time
                save(self, self.out)
            if stopping():
                raise KeyboardInterrupt

        with _patience() as stopping:
            try:
                for point in self._records():
                    self.engine.run(point, watch)
                    self.curve.append(self.record())
                    journal(self.curve[-1])
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                if self.interrupted and every and self.out:
                    save(self, self.out)
                journal.close()

    def _records(self) -> Iterator[float]:
        """Times to record at: 0, and so on to the last step."""
        step = self.config.steps / self.config.simulation.records
        k = len(self.curve)
        while k == 0 or self.engine.time >= (k - 1) * step:
            yield k * step
            k += 1

    def record(self) -> dict[str, float]:
        engine = self.engine
        points = engine.points()
        return {
            "time": engine.time,
            "gradients": engine.gradients / engine.workers,
            "exchanges": engine.exchanges / self.replicas,
            **self._measures(points),
        }

    def _measures(self, points: Tensor) -> dict[str, float]:
        """Of the local models; with replicas the mean over them, and its standard error."""
        each = [
            {"consensus": consensus(part), **self.objective.measures(part)}
            for part in torch.split(points, self.n)
        ]
        means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        if not self.objective.without_gradients and (loss := self.loss()) is not None:
            means["loss"] = loss
        if len(each) > 1:
            for name in list(each[0]):
                spread = np.std([one[name] for one in each], ddof=1) / len(each) ** 0.5
                means[f"{name}_error"] = float(spread)
        return means

    def loss(self) -> float | None:
        """Mean of the workers' last losses, where the objective gives them."""
        known = self.engine.losses[~self.engine.losses.isnan()]
        return float(known.mean()) if len(known) else None

    def status(self, wall_s: float, start: int) -> Status:
        engine = self.engine
        events = engine.gradients + engine.exchanges
        last = self.curve[-1] if self.curve else {}
        return {
            "worker": 0, "state": "training", "time": engine.time, "end": self.config.steps,
            "step": engine.gradients // engine.workers or int(engine.time), "events": events,
            "events_per_s": (events - start) / max(wall_s, 1e-9), "loss": self.loss(),
            "measures": {name: last[name] for name in ("consensus", "distance") if name in last},
        }  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        """What became of the workers of the first replica; measures for some of them if many."""
        chosen = set(np.linspace(0, self.n - 1, min(self.n, MEASURED)).round().astype(int).tolist())
        points, tally = self.engine.points(), self.engine.tally
        losses = self.engine.losses.tolist()
        return [
            {
                "id": me, "steps": int(tally[0, me]), "loss": losses[me],
                "parameters": self.objective.size,
                "metrics": self.task.evaluate(self.model(points[me], me)) if me in chosen else {},
                "stats": self._stats(*(int(count) for count in tally[1:, me])),
            }
            for me in range(self.n)
        ]  # fmt: skip

    def _stats(self, started: int, answered: int) -> dict[str, Any]:
        bytes_ = (started + answered) * self.objective.size * self.engine.rows.element_size()
        return {
            "started": started, "completed": started, "answered": answered, "abandoned": 0,
            "models_sent": float(started + answered), "bytes_sent": bytes_,
            "bytes_received": bytes_, "values_mixed": (started + answered) * self.objective.size,
        }  # fmt: skip

    def model(self, point: Tensor, worker: int) -> nn.Module:
        """A model of the task with these parameters."""
        model = self.task.model()
        if isinstance(self.objective, Stacked):
            self.objective.load(worker, point, model)
        else:
            with torch.no_grad():
                next(model.parameters()).copy_(point)
        return model

    def merge(self) -> dict[str, float]:
        """The weighted mean of the first replica's models: saved, and its measures."""
        samples = getattr(self.objective, "samples", [1] * self.n)
        merge = self.config.make_merge()
        weights = torch.tensor([merge.weight(count) for count in samples], dtype=torch.float64)
        points = self.engine.points()[: self.n].cpu()
        mean = (weights / weights.sum()).to(points.dtype) @ points
        model = self.model(mean, 0)
        if isinstance(self.objective, Stacked):
            self.objective.merge_norms(model, self.config.merge.norm_statistics, weights)
        if self.out is not None:
            save_model(self.out / "merged.safetensors", model, {"steps": str(self.config.steps)})
        return self.task.evaluate(model)


def initial_state(dynamics: Dynamics, points: Tensor) -> Tensor:
    """[S, n, d]: every worker at rest at its row of `points` [n, d]."""
    flat = points.reshape(-1).cpu().numpy()
    return torch.from_numpy(dynamics.initial(flat)).reshape(-1, *points.shape)


def consensus(points: Tensor) -> float:
    """Mean over the workers of ‖x_i − x̄‖²."""
    return float((points - points.mean(0)).square().sum(1).mean())


def _objective(task: Task, config: Config, workers: int) -> Objective:
    if hasattr(task, "objective"):
        found: Objective = task.objective(workers)
        return found
    if config.simulation.replicas > 1:
        raise ConfigError(
            f"simulation.replicas = {config.simulation.replicas} with task {task.name!r}",
            "1, or a convex task (ridge, logistic, consensus)",
            "run it with several seeds instead",
        )
    return Stacked(task, workers, config.seed, config.batch_size, config.simulation.device)


def simulate(
    config: Config,
    out: Path | None = None,
    *,
    on_status: Callable[[list[Status]], None] | None = None,
    checkpoint_every: float | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Run `config`; the outcome has the shape of `launcher.launch`'s, with the curve beside it.

    Raises RuntimeFault at the first value that is not finite.
    """
    started_s, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(config.runtime.threads)
    torch.manual_seed(torch_seed(config.seed, "ideal"))
    try:
        run = Run(config, out)
        if resume and out is not None:
            restore(run, out)
        run.go(on_status, checkpoint_every)
        results, merged = run.results(), {} if run.interrupted else run.merge()
    finally:
        torch.set_num_threads(threads)
    wall_s = time.monotonic() - started_s
    events = run.engine.gradients + run.engine.exchanges
    return {
        "results": results, "merged": merged,
        "merged_among": [] if run.interrupted else list(range(run.n)),
        "faults": [], "wall_s": wall_s, "interrupted": run.interrupted,
        "ideal": {
            "time": run.engine.time, "replicas": run.replicas, "events": events,
            "gradients": run.engine.gradients, "exchanges": run.engine.exchanges,
            "events_per_s": events / wall_s, "last": run.curve[-1] if run.curve else {},
        },
        "curve": run.curve,
    }  # fmt: skip


@contextmanager
def _patience() -> Iterator[Callable[[], bool]]:
    """Ctrl-C waits for the end of a window, so that what was computed is whole; a second one does
    not. Yields whether there was one."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not in the main thread
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
