"""How fast the ideal engine is, against the plain way of doing the same in the same run.

    per_event   DADAO, ridge, ring of 16, 5 features: against an implementation that takes one event
                at a time, as published code does (autograd, a matrix exponential for each visit)
    training    1,024 workers on digits: a gradient event against plain training on the same number
                of samples: one model fed with all workers' samples at once, and one model stepping
                through them a worker's batch at a time
    growth      the same from 64 workers to 4,096
    consensus   10,000 workers on a random regular graph: time, and memory against the state's

Figures are medians over rounds, taken in turn; CPU seconds are those of this process.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from decent.dynamics import Acid, Dadao, Gossip, System
from decent.errors import RuntimeFault
from decent.learning.local import SGD
from decent.learning.objective import starting_points
from decent.learning.ridge import Ridge, RidgeObjective
from decent.learning.stacked import Stacked
from decent.learning.task import load
from decent.schedule import Poisson
from decent.simulation.cluster import Pace
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Events, Scheduled, Superposed
from decent.simulation.ideal.run import initial_state
from decent.topology import family

Figures = dict[str, Any]
LR, RATE = 0.1, 0.1


def bench_simulate(
    rounds: int = 5,
    workers: int = 1024,
    most: int = 4096,
    threads: int = 1,
    on_part: Callable[[str], None] = print,
) -> Figures:
    """All figures, on so many of torch's threads; `on_part` hears what is being measured."""
    torch.set_num_threads(threads)
    figures: Figures = {"threads": torch.get_num_threads()}
    parts: dict[str, Callable[[], Figures]] = {
        "per_event": lambda: per_event(rounds),
        "training": lambda: training(rounds, workers),
        "growth": lambda: growth(most),
        "consensus": consensus,
    }
    for name, measure in parts.items():
        on_part(name)
        figures[name] = measure()
    return figures


def per_event(rounds: int, seeds: int = 512) -> Figures:
    """Events per second: one at a time, our engine on one run, and on `seeds` runs at once."""
    topology = family("ring", 16, rate=2.4815322)  # χ₁χ₂ = ½
    problem: Any = Ridge(samples=45).objective(16)
    system = Dadao(problem.mu, problem.L).system(topology.chi_1, topology.chi_2)
    designs, targets = _data(Ridge(samples=45), 16)
    spent: dict[str, list[list[float]]] = {}
    for turn in range(rounds + 1):
        events = Superposed(topology, 1, seed=turn).until(10.0)
        state = torch.zeros(6, 16, 5, dtype=torch.float64)
        used = _used(lambda: one_at_a_time(designs, targets, system, events, state))  # noqa: B023
        spent.setdefault("one_at_a_time", []).append([len(events.time) / t for t in used])
        for name, count, span in (("one_run", 1, 300.0), ("many_runs", seeds, 20.0)):
            engine = _dadao(problem, system, Superposed(topology, count, seed=turn))
            used = _used(lambda: engine.run(span))  # noqa: B023
            done = engine.gradients + engine.exchanges
            spent.setdefault(name, []).append([done / t for t in used])
    found: Figures = {"seeds": seeds}
    for k, unit in enumerate(("events_per_s", "events_per_cpu_s")):
        rates = {
            name: statistics.median(pair[k] for pair in each[1:]) for name, each in spent.items()
        }
        found[unit] = rates
        for name in ("one_run", "many_runs"):
            found[unit][f"{name}_over_one_at_a_time"] = rates[name] / rates["one_at_a_time"]
    return found


def one_at_a_time(
    designs: Tensor, targets: Tensor, system: System, events: Events, state: Tensor
) -> None:
    """DADAO event by event on `state` [S, n, d]: the straightforward implementation."""
    flow, kick, mix = (torch.tensor(each) for each in (system.flow, system.kick, system.mix))
    residual, message = torch.tensor(system.residual), torch.tensor(system.message)
    last = [0.0] * state.shape[1]

    def visit(worker: int, now: float) -> Tensor:
        drift = torch.linalg.matrix_exp(flow * (now - last[worker]))
        last[worker] = now
        state[:, worker] = drift @ state[:, worker]
        return state[:, worker]

    for now, i, j in zip(*(column.tolist() for column in events), strict=True):
        if j < 0:
            own = visit(i, now)
            x = own[0].clone().requires_grad_()
            loss = (designs[i] @ x - targets[i]).square().mean()
            (gradient,) = torch.autograd.grad(loss, x)
            state[:, i] += torch.outer(kick, gradient + residual @ own)
        else:
            difference = message @ visit(i, now) - message @ visit(j, now)
            state[:, i] -= torch.outer(mix, difference)
            state[:, j] += torch.outer(mix, difference)


def training(rounds: int, workers: int) -> Figures:
    """Microseconds of a gradient event (exchanges included) against plain training."""
    found: Figures = {"workers": workers, "models_per_step": RATE}
    cases: dict[str, Gossip | Acid] = {"gossip": Gossip(), "a2cid2": Acid()}
    for batch in (16, 64):
        engines = {name: _digits(workers, batch, dynamics) for name, dynamics in cases.items()}
        spent: dict[str, list[float]] = {}
        for _ in range(rounds + 1):
            for name, engine in engines.items():
                spent.setdefault(name, []).append(_per_gradient(engine, 4.0))
            joined, looped = _plain(workers * batch, 4), _plain(batch, 100)
            spent.setdefault("plain_all_samples", []).append(joined / workers)
            spent.setdefault("plain_same_batch", []).append(looped)
        us = {name: 1e6 * statistics.median(each[1:]) for name, each in spent.items()}
        ratios = {
            f"{name}_over_{plain}": us[name] / us[plain]
            for name in cases
            for plain in ("plain_all_samples", "plain_same_batch")
        }
        found[f"batch_{batch}"] = {"us": us, **ratios}
    return found


def growth(most: int) -> Figures:
    """Microseconds of an event as the number of workers grows."""
    sizes = [n for n in (64, 256, 1024, 4096) if n <= most]
    rows = []
    for n in sizes:
        engine = _digits(n, 16, Acid())
        engine.run(2.0)
        before, start = engine.gradients + engine.exchanges, time.perf_counter()
        engine.run(2.0 + max(4.0, 2048 / n))
        took, events = time.perf_counter() - start, engine.gradients + engine.exchanges - before
        rows.append({"workers": n, "events": events, "us_per_event": 1e6 * took / events})
    return {"rows": rows, "last_over_first": rows[-1]["us_per_event"] / rows[0]["us_per_event"]}


CONSENSUS = """
import json, sys, time
from decent.bench.usage import peak_mb
from decent.config import from_dict
from decent.simulation import simulate
import decent.simulation.ideal.run, torch, scipy.sparse.linalg
workers, size, dynamics = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
config = from_dict({
    "workers": workers, "steps": 20, "init": "own", "task": {"name": "consensus", "size": size},
    "topology": {"name": "random_regular", "degree": 3, "rate": 1.0}, "dynamics": dynamics,
    "simulation": {"fidelity": "ideal", "records": 10},
})
before, start = peak_mb(), time.perf_counter()
found = simulate(config)["ideal"]
print(json.dumps({
    "wall_s": time.perf_counter() - start, "exchanges": found["exchanges"],
    "events_per_s": found["events_per_s"], "consensus": found["last"]["consensus"],
    "peak_mb": peak_mb() - before,
}))
"""


def consensus(workers: int = 10_000, size: int = 2000) -> Figures:
    """In a process of its own, whose peak memory beyond its imports is compared with the state's:
    S vectors of float64 for each worker."""
    found: Figures = {"workers": workers, "values": size}
    for dynamics, slots in (("gossip", 1), ("a2cid2", 2)):
        command = [sys.executable, "-c", CONSENSUS, str(workers), str(size), dynamics]
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise RuntimeFault(f"the consensus run failed: {done.stderr.strip()[-300:]}")
        measured = json.loads(done.stdout)
        state_mb = slots * workers * size * 8 / 2**20
        ratio = measured["peak_mb"] / state_mb
        found[dynamics] = {**measured, "state_mb": state_mb, "memory_over_state": ratio}
    return found


def _data(task: Ridge, workers: int) -> tuple[Tensor, Tensor]:
    pairs = [task.local(worker) for worker in range(workers)]
    return tuple(torch.stack([torch.from_numpy(pair[k]) for pair in pairs]) for k in (0, 1))  # type: ignore[return-value]


def _dadao(problem: RidgeObjective, system: System, source: Superposed) -> Engine:
    state = torch.zeros(6, source.workers, problem.size, dtype=torch.float64)
    return Engine(problem, system, source, state)


def _digits(workers: int, batch: int, dynamics: Gossip | Acid) -> Engine:
    task = load("digits", 0, sharding="all")
    topology = family("random_regular", workers, degree=4).with_models_per_worker(RATE)
    source = Scheduled(topology, Poisson(), steps=10**6, paces=[Pace(jitter=0.1)] * workers)
    points = starting_points(task, workers, 0, "common").contiguous()
    system = dynamics.system(20.0, 5.0)  # what they are matters nothing to the time
    state = initial_state(dynamics, points)
    return Engine(Stacked(task, workers, 0, batch), system, source, state, optimizer=SGD(LR))


def _per_gradient(engine: Engine, span: float) -> float:
    before, start = engine.gradients, time.perf_counter()
    engine.run(engine.time + span)
    return (time.perf_counter() - start) / (engine.gradients - before)


def _plain(batch: int, steps: int) -> float:
    """Seconds of a step of one model in the usual loop."""
    task: Any = load("digits", 0)
    model = task.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    X, y = task.train
    start = time.perf_counter()
    for _ in range(steps):
        rows = torch.randint(0, len(y), (batch,))
        optimizer.zero_grad()
        task.loss(model, (X[rows], y[rows])).backward()
        optimizer.step()
    return (time.perf_counter() - start) / steps


def _used(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the wall, and of the processor."""
    start_s, start_cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start_s, time.process_time() - start_cpu_s
