"""A whole run in virtual time: the config's task, trained by the runtime's own workers in one
process, with modelled compute times and links. The same folder comes out of it as of a real run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from decent.config import Config, Named
from decent.errors import ConfigError, RuntimeFault
from decent.folder import Journal, worker_folder, write_json
from decent.learning import (
    Trainer,
    add_residual,
    all_reduce,
    bind,
    has_batch_norm,
    load_moments,
    moments,
    recalibrate,
    save_model,
    to_vector,
)
from decent.learning.settle import settle
from decent.simulation.cluster import Cluster
from decent.simulation.ideal import run as ideal
from decent.simulation.network import Network
from decent.simulation.paces import paces
from decent.simulation.rounds import run as rounds
from decent.topology import Link, Topology
from decent.transport import bounds
from decent.worker import Ledger, StepClock, Worker, codecs

Status = dict[str, Any]
REFRESH_S = 0.2


class Run:
    """Trainers and workers of `config`, side by side, on a `Cluster`."""

    def __init__(self, config: Config, out: Path | None) -> None:
        self.config, self.out = config, out
        self.topology = config.make_topology()
        self.dynamics = config.make_dynamics()
        self.trainers = [Trainer.of(config, me, self.topology.n) for me in range(self.topology.n)]
        self.losses = [float("nan")] * self.topology.n
        self.journals = [self._journal(me, "trace") for me in range(self.topology.n)]
        self.metrics = [self._journal(me, "metrics") for me in range(self.topology.n)]
        self.books: list[Journal] = []
        merge = config.make_merge()
        self.weights = [merge.weight(trainer.samples) for trainer in self.trainers]
        self.cluster = Cluster(
            [self._worker(me) for me in range(self.topology.n)],
            _network(config, self.topology),
            learner=self._learn,
            paces=paces(config, self.topology.n),
            weights=self.weights,
            seed=config.seed,
        )

    def _journal(self, me: int, name: str) -> Journal:
        return Journal(None if self.out is None else worker_folder(self.out, me) / f"{name}.jsonl")

    def _worker(self, me: int) -> Worker:
        config, trainer = self.config, self.trainers[me]
        vector = self.dynamics.initial(to_vector(trainer.model))
        layout = bind(trainer.model, vector[0])
        modelled = (self.topology.links, config.simulation.bandwidth_mbps)
        apart = any(each is not None for each in modelled)
        worker = Worker(
            me, self.topology, self.dynamics, config.make_schedule(), vector,
            seed=config.seed, run="simulation", digest=layout.digest, steps=config.steps,
            clock=StepClock(), record=self.journals[me],
            follow=config.simulation.momentum == "achieved", ledger=self._ledger(me),
            codec=codecs.get(**msgspec.structs.asdict(config.exchange)),
            limits=bounds.limits(config, vector.shape[1], vector.dtype.itemsize, apart),
        )  # fmt: skip
        if worker.slots.system.residual.any():
            trainer.optimizer.register_step_pre_hook(
                lambda *_: add_residual(
                    trainer.model, layout, vector, worker.slots.system.relative.residual.tolist()
                )
            )
        return worker

    def _ledger(self, me: int) -> Ledger | None:
        """Of all chunks: steps are measured at little cost here."""
        if self.out is None or self.config.runtime.ledger is False:
            return None
        self.books.append(self._journal(me, "ledger"))
        return Ledger(self.books[-1], self.config.seed)

    def _learn(self, worker: Worker) -> None:
        self.losses[worker.me] = self.trainers[worker.me].step()
        step = self.trainers[worker.me].steps
        if step % 10 == 0 or step == self.config.steps:
            self.metrics[worker.me]({"step": step, "loss": self.losses[worker.me]})

    def status(self) -> list[Status]:
        return [self._status(me) for me in range(self.topology.n)]

    def _status(self, me: int) -> Status:
        worker = self.cluster.workers[me]
        stats = worker.context.stats
        merging = "merging" if me in self.cluster.merges else "training"
        return {
            "worker": me, "state": "dead" if me in self.cluster.down else merging,
            "step": worker.context.clock.steps, "steps": self.config.steps,
            "loss": self.losses[me], "exchanges": round(stats.started + stats.answered),
            "models_sent": stats.models_sent, "bytes_sent": stats.bytes_sent,
            "bytes_received": stats.bytes_received, "skipped": stats.skipped.total(),
        }  # fmt: skip

    def results(self) -> list[dict[str, Any]]:
        """Measures of the local models, before the merge is put into them."""
        results: list[dict[str, Any]] = []
        for me, trainer in enumerate(self.trainers):
            if me in self.cluster.down:
                results.append({"id": me, "steps": trainer.steps, "dead": True})
                continue
            self._save(worker_folder(self.out, me) / "model" if self.out else None, me)
            results.append(
                {
                    "id": me, "steps": trainer.steps, "loss": self.losses[me],
                    "parameters": self.cluster.workers[me].slots.values,
                    "metrics": trainer.evaluate(),
                    "stats": self.cluster.workers[me].context.stats.as_dict(),
                }
            )  # fmt: skip
        return results

    def merge(self) -> tuple[dict[str, float], list[int]]:
        """Put the merge into the models of all alive; measures of it, and who was merged."""
        alive = self.cluster.alive
        first = self.cluster.merges[alive[0]]
        for me in alive:
            self.cluster.workers[me].slots.array[0] = self.cluster.merges[me].result
        self._merge_norms(alive)
        self._save(self.out / "merged" if self.out else None, alive[0])
        return self.trainers[alive[0]].evaluate(), list(first.among)

    def _merge_norms(self, alive: list[int]) -> None:
        policy = self.config.merge.norm_statistics
        if policy == "local" or not has_batch_norm(self.trainers[0].model):
            return
        if policy == "recalibrate":
            for me in alive:
                trainer = self.trainers[me]
                recalibrate(trainer.model, trainer.batches(32), trainer.task.loss)
        weights = [self.weights[me] for me in alive]
        pooled = np.average([moments(self.trainers[me].model) for me in alive], 0, weights)
        for me in alive:
            load_moments(self.trainers[me].model, pooled)

    def _save(self, path: Path | None, me: int) -> None:
        if path is not None:
            steps = {"steps": str(self.trainers[me].steps)}
            save_model(path.with_suffix(".safetensors"), self.trainers[me].model, steps)

    def close(self) -> None:
        self.cluster.close()
        for journal in (*self.journals, *self.metrics, *self.books):
            journal.close()


def simulate(
    config: Config,
    out: Path | None = None,
    *,
    on_status: Callable[[list[Status]], None] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Run `config` in virtual time. The outcome has the shape of `launcher.launch`'s; `options`
    are those of the ideal engine (`ideal.run.simulate`), if it is to run that.

    Raises ConfigError where workers have nothing to do with each other, RuntimeFault where every
    one has failed.
    """
    if config.apart:
        raise ConfigError(
            "workers that neither exchange nor merge", "something to simulate",
            'run it by decent launch, or set merge = "mean"',
        )  # fmt: skip
    if config.method is not None:
        return rounds.simulate(config, out, on_status)
    if config.simulation.fidelity == "ideal":
        return ideal.simulate(config, out, on_status=on_status, **options)
    config = settle(config, config.make_topology().n, out)
    started_s = time.monotonic()
    threads = torch.get_num_threads()
    torch.set_num_threads(config.runtime.threads)
    run = Run(config, out)
    shown_s = [-np.inf]

    def watch(cluster: Cluster) -> bool:
        if on_status and time.monotonic() > shown_s[0] + REFRESH_S:
            shown_s[0] = time.monotonic()
            on_status(run.status())
        return cluster.finished()

    interrupted = False
    try:
        run.cluster.run(until=watch)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        torch.set_num_threads(threads)
        run.close()
    if not run.cluster.alive:
        raise RuntimeFault(next(iter(run.cluster.down.values())))
    results = run.results()
    merged, among = ({}, []) if interrupted else run.merge()
    for result in results:
        if out is not None:
            write_json(worker_folder(out, result["id"]) / "result.json", result)
    return {
        "results": results,
        "merged": merged,
        "merged_among": among,
        "faults": [
            {"worker": me, "at_s": round(run.cluster.died_s[me], 3), "what": what}
            for me, what in run.cluster.down.items()
        ],
        "wall_s": time.monotonic() - started_s,
        "virtual_s": run.cluster.now_s,
        "interrupted": interrupted,
    }


def compare(config: Config) -> dict[str, Any]:
    """What the same steps on the same data give without exchanges before the merge, and with
    synchronous all-reduce at every step."""
    isolated = simulate(msgspec.structs.replace(config, schedule=Named(name="never")))
    workers = config.make_topology().n
    trainers = [Trainer.of(config, me, workers) for me in range(workers)]
    metrics = [result["metrics"] for result in isolated["results"]]
    mean = {name: float(np.mean([each[name] for each in metrics])) for name in metrics[0]}
    return {
        "isolated": {"local_mean": mean, "merged": isolated["merged"]},
        "all-reduce": {"merged": all_reduce(trainers, config.steps)},
    }


def _network(config: Config, topology: Topology) -> Network:
    table = config.simulation
    bandwidth = None if table.bandwidth_mbps is None else 1e6 * table.bandwidth_mbps
    link = Link(table.latency_s, bandwidth)
    return Network(topology, link, config.seed, table.jitter, table.loss)
