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
from torch import Tensor

from decent.config import Config
from decent.dynamics import Dynamics, system_on
from decent.folder import Journal
from decent.learning.devices import known
from decent.learning.trainer import torch_seed
from decent.simulation.ideal.checkpoint import restore, save
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Scheduled
from decent.simulation.paces import paces
from decent.simulation.population import Population, consensus

Status = dict[str, Any]


class Run:
    """The engine of `config`, and what is to be known of it."""

    def __init__(self, config: Config, out: Path | None) -> None:
        self.out, self.population = out, Population(config, out)
        self.config, self.n = self.population.config, self.population.n
        self.objective, self.replicas = self.population.objective, self.population.replicas
        self.engine = self._engine()
        self.curve: list[dict[str, float]] = []
        self.interrupted, self.engine_s = False, 0.0

    def _engine(self) -> Engine:
        config, topology = self.config, self.population.topology
        points, steps = self.population.starts(), not self.objective.without_gradients
        dynamics = config.make_dynamics()
        source = Scheduled(
            topology, config.make_schedule(), seed=config.seed, steps=config.steps,
            paces=paces(config, self.n, unit=True), gradients=steps, replicas=self.replicas,
        )  # fmt: skip
        return Engine(
            self.objective,
            system_on(dynamics, topology),
            source,
            initial_state(dynamics, points),
            optimizer=self.population.optimizer(points) if steps else None,
            device=known(config.simulation.device),
        )

    def go(self, on_status: Callable[[list[Status]], None] | None, every: float | None) -> None:
        """To the end, or until it is interrupted, which takes effect between windows."""
        journal = Journal(self.out / "curve.jsonl" if self.out else None)
        for earlier in self.curve:
            journal(earlier)
        started, start = time.monotonic(), self.engine.gradients + self.engine.exchanges
        saved, whole = self.engine.time, False  # inside a window the state is not

        def watch() -> None:
            nonlocal saved, whole
            whole = True
            if on_status:
                on_status([self.status(time.monotonic() - started, start)])
            if every and self.out and self.engine.time >= saved + every:
                saved = self.engine.time
                save(self, self.out)
            if stopping():
                raise KeyboardInterrupt
            whole = False

        with _patience() as stopping:
            try:
                for point in self._records():
                    began_s = time.monotonic()
                    self.engine.run(point, watch)
                    self.engine_s += time.monotonic() - began_s
                    self.curve.append(self.record())
                    journal(self.curve[-1])
            except KeyboardInterrupt:
                self.interrupted = True
            finally:
                if self.interrupted and whole and every and self.out:
                    save(self, self.out)
                journal.close()

    def _records(self) -> Iterator[float]:
        """Times to record at: 0, and so on to the last step."""
        step = self.config.steps / self.config.simulation.records
        k = len(self.curve)
        while not self.engine.finished:
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
        """What became of the workers of the first replica."""
        engine = self.engine
        steps, losses = torch.from_numpy(engine.tally[0]), engine.losses
        stats = [self._stats(*pair) for pair in engine.tally[1:, : self.n].T.tolist()]
        return self.population.results(engine.points(), steps, losses, stats)

    def _stats(self, started: int, answered: int) -> dict[str, Any]:
        sent, size = started + answered, self.objective.size
        bytes_ = sent * size * self.engine.rows.element_size()
        return {
            "started": started, "completed": started, "answered": answered, "abandoned": 0,
            "models_sent": float(sent), "bytes_sent": bytes_, "bytes_received": bytes_,
            "values_mixed": sent * size,
        }  # fmt: skip


def initial_state(dynamics: Dynamics, points: Tensor) -> Tensor:
    """[S, n, d]: every worker at rest at its row of `points` [n, d]."""
    flat = points.reshape(-1).cpu().numpy()
    return torch.from_numpy(dynamics.initial(flat)).reshape(-1, *points.shape)


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
        results = run.results()
        merged = {} if run.interrupted else run.population.merge(run.engine.points())
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
            "events_per_s": events / max(run.engine_s, 1e-9),
            "last": run.curve[-1] if run.curve else {},
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
