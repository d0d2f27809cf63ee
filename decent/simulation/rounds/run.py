"""A whole run of a round-based method: a configuration in, an outcome and curves out.

The same folder as of an ideal run comes out of it. `topology.rounds` says who mixes with whom in
each round; schedule and dynamics play no part.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decent.config import Config, Named
from decent.errors import ConfigError
from decent.folder import Journal
from decent.simulation import rounds
from decent.simulation.population import Population
from decent.simulation.rounds.curve import measures
from decent.simulation.rounds.method import Round
from decent.simulation.rounds.problem import Mixing, Problem
from decent.topology import Topology, varying

Status = dict[str, Any]


def simulate(
    config: Config, out: Path | None, on_status: Callable[[list[Status]], None] | None = None
) -> dict[str, Any]:
    """Run `config.method` for `config.steps` gradients per worker; the outcome has the shape of
    `launcher.launch`'s.

    Raises ConfigError for a method that the task does not suit, RuntimeFault where it diverges.
    """
    started_s, threads = time.monotonic(), torch.get_num_threads()
    torch.set_num_threads(config.runtime.threads)
    try:
        population = Population(config, out)
        run = _Run(population, out, on_status)
        n, steps = population.n, round(run.curve[-1]["gradients"])
        losses, stats = torch.full((n,), torch.nan), [dict[str, Any]()] * n
        results = population.results(run.points, torch.full((n,), steps), losses, stats)
        merged = {} if run.interrupted else population.merge(run.points)
    finally:
        torch.set_num_threads(threads)
    wall_s, last = time.monotonic() - started_s, run.curve[-1]
    events = round(n * last["gradients"] + last["exchanges"])
    return {
        "results": results, "merged": merged,
        "merged_among": [] if run.interrupted else list(range(n)),
        "faults": [], "wall_s": wall_s, "interrupted": run.interrupted,
        "ideal": {
            "time": last["time"], "replicas": 1, "events": events,
            "gradients": round(n * last["gradients"]), "exchanges": last["exchanges"],
            "events_per_s": events / wall_s, "last": last,
        },
        "curve": run.curve,
    }  # fmt: skip


class _Run:
    """Follows the method to the end, or until it is interrupted."""

    def __init__(
        self,
        population: Population,
        out: Path | None,
        on_status: Callable[[list[Status]], None] | None,
    ) -> None:
        self.config, self._on_status = population.config, on_status
        self.problem, self.curve = _problem(population), list[dict[str, float]]()
        self.points: Tensor = self.problem.start
        self.interrupted = False
        self._started_s, self._journal = (
            time.monotonic(),
            Journal(out / "curve.jsonl" if out else None),
        )
        config, named = self.config, self.config.method or Named(name="")
        try:
            rounds.follow(
                rounds.get(named.name, **named.options),
                self.problem,
                gradients=config.steps,
                every=config.steps / config.simulation.records,
                on_progress=self._note,
            )
        except KeyboardInterrupt:
            self.interrupted = True
        finally:
            self._journal.close()

    def _note(self, at: Round) -> None:
        record = {"time": at.gradients, "gradients": at.gradients, "exchanges": at.messages}
        self.curve.append(record | measures(self.problem, at.points))
        self.points = at.points
        self._journal(self.curve[-1])
        if self._on_status is not None:
            self._on_status([self._status(self.curve[-1])])

    def _status(self, record: dict[str, float]) -> Status:
        events = self.problem.n * record["gradients"] + record["exchanges"]
        return {
            "worker": 0, "state": "training", "time": record["time"], "end": self.config.steps,
            "step": round(record["gradients"]), "events": events,
            "events_per_s": events / max(time.monotonic() - self._started_s, 1e-9),
            "measures": {
                name: record[name] for name in ("consensus", "distance") if name in record
            },
        }  # fmt: skip


def _problem(population: Population) -> Problem:
    config, objective = population.config, population.objective
    if population.replicas > 1:
        raise ConfigError(
            f"simulation.replicas = {population.replicas} with a method", "1", "use several seeds"
        )
    if objective.without_gradients:
        raise ConfigError(f"task {config.task.name!r} with a method", "a task with gradients")
    points = population.starts().contiguous()
    theory = hasattr(objective, "mu") and config.optimizer is None  # the method knows its step
    optimizer = None if theory else lambda: population.optimizer(points)
    mixing = _mixing(config, population.topology)
    return Problem(objective, mixing, population.topology, points, optimizer)


def _mixing(config: Config, topology: Topology) -> Mixing:
    match config.topology.rounds:
        case "random_matching":
            return varying.random_matching(topology.n, config.topology.seed)
        case "one_peer_exponential":
            return varying.one_peer_exponential(topology.n)
    return varying.static(topology)
