"""Consensus and DADAO where an exchange takes time: the workers of a real run, in virtual time.

    a2cid2   16 workers on a ring, one exchange per worker and unit of time; x_i ~ N(0, I), no
             gradients; error: (1/n) Σ ‖x_i − x̄‖²
    dadao    8 workers on a ring at the designed rates, f_i(x) = ½ h_i ‖x − c_i‖², h_i = 1 and κ
             in turn, Poisson gradients, from 0; error: (1/n) Σ ‖x_i − x*‖²

Errors are means over seeds, relative to time 0. The growth is that of their logarithm per unit of
time once the start is over: from `settled` to the end. An edge carries one exchange at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from decent.dynamics import Acid, Dadao, Dynamics, Gossip
from decent.reproduce import Progress, convex, style
from decent.schedule import Poisson, stream
from decent.simulation import Cluster, Network, Pace
from decent.testing import cluster
from decent.topology import Link, Topology, family
from decent.worker import Limits, Worker

Figures = dict[str, Any]
Floats = NDArray[np.float64]
KAPPA = 10.0
SIZE = 16  # coordinates
POINTS = 41
TITLES = {"a2cid2": "consensus, ring of 16", "dadao": "DADAO, ring of 8"}
FOREVER_S = 1e9
LIMITS = Limits(
    chunk=SIZE, beat_s=FOREVER_S, silent_s=FOREVER_S, dead_s=FOREVER_S, start_s=FOREVER_S,
    retry_s=FOREVER_S,
)  # fmt: skip
"""Nothing is lost here and nobody dies: no repeats, no signs of life."""


@dataclass(frozen=True)
class Method:
    """`follow`: whether its constants follow the rates and delays that a worker sees."""

    label: str
    dynamics: Dynamics
    follow: bool = False


class Problem:
    """Workers on `topology`, the methods to compare, `options` of the cluster."""

    topology: Topology
    methods: ClassVar[dict[str, Method]]
    options: dict[str, Any]

    def initial(self, seed: int) -> Floats:
        """[n, d]"""
        raise NotImplementedError

    def error(self, points: Floats) -> float:
        raise NotImplementedError

    def run(self, method: Method, round_trip: float, seed: int) -> Cluster:
        return cluster(
            self.topology, method.dynamics, Poisson(), SIZE, initial=self.initial(seed),
            network=Network(self.topology, Link(round_trip / 2)), limits=LIMITS, merge=False,
            follow=method.follow, seed=seed, **self.options,
        )  # fmt: skip


class Agreement(Problem):
    """Workers that only exchange."""

    methods: ClassVar = {
        "gossip": Method("gossip", Gossip()),
        "nominal": Method("A²CiD², nominal rates", Acid()),
        "achieved": Method("A²CiD², achieved rates", Acid(), follow=True),
    }

    def __init__(self) -> None:
        self.topology = family("ring", 16).with_models_per_worker(1.0)
        self.options: dict[str, Any] = {}

    def initial(self, seed: int) -> Floats:
        return stream(seed, "points").standard_normal((self.topology.n, SIZE))

    def error(self, points: Floats) -> float:
        return float(np.square(points - points.mean(0)).sum(1).mean())


class Descent(Problem):
    """Workers that minimise Σ_i f_i by DADAO."""

    methods: ClassVar = {
        "published": Method("published", Dadao(1.0, KAPPA, "published")),
        "safety2": Method("for rates 2× lower", Dadao(1.0, KAPPA, safety=2.0)),
        "safety4": Method("for rates 4× lower", Dadao(1.0, KAPPA, safety=4.0)),
        "achieved": Method("achieved rates", Dadao(1.0, KAPPA), follow=True),
    }

    def __init__(self) -> None:
        self.topology = convex.designed(family("ring", 8))
        n = self.topology.n
        self.curvatures = np.where(np.arange(n) % 2, KAPPA, 1.0)
        self.centres = stream(0, "centres").standard_normal((n, SIZE))
        self.optimum = self.curvatures @ self.centres / self.curvatures.sum()
        self.options = {"learner": self.learn, "paces": [Pace(poisson=True)] * n, "steps": 10**9}

    def learn(self, worker: Worker) -> None:
        """x ← x − γ (∇f_i(x) + residual), as an optimizer would."""
        system, state = worker.slots.system.relative, worker.slots.array
        gradient = self.curvatures[worker.me] * (state[0] - self.centres[worker.me])
        state[0] += system.kick[0] * (gradient + system.residual @ state)

    def initial(self, seed: int) -> Floats:
        return np.zeros_like(self.centres)

    def error(self, points: Floats) -> float:
        return float(np.square(points - self.optimum).sum(1).mean())


PROBLEMS: dict[str, type[Problem]] = {"a2cid2": Agreement, "dadao": Descent}


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    found: Figures = {}
    for k, (name, kind) in enumerate(PROBLEMS.items()):
        problem, found[name] = kind(), {}
        own = {key: value[name] for key, value in settings.items()}
        for part, (key, method) in enumerate(problem.methods.items()):
            done = (k + part / len(problem.methods)) / len(PROBLEMS)
            progress(f"{name}: {method.label}", done)
            found[name][key] = _over_delays(problem, method, own)
    table = [_row(name, each) for name in PROBLEMS for each in found[name].values()]
    compared = _compared(found["a2cid2"]["achieved"], found["a2cid2"]["gossip"])
    return {**found, "momentum": compared, "shown": settings["shown"], "table": table}


def _over_delays(problem: Problem, method: Method, settings: dict[str, Any]) -> Figures:
    times = np.linspace(0, settings["until"], POINTS)
    curves, shares = [], []
    for round_trip in settings["round_trips"]:
        errors, share = _mean(problem, method, round_trip, times, settings["seeds"])
        curves.append(errors)
        shares.append(share)
    late = times >= settings["settled"]
    growths = [float(np.log(each[-1] / each[late][0]) / np.ptp(times[late])) for each in curves]
    return {
        "label": method.label, "round_trips": settings["round_trips"], "growth": growths,
        "achieved": shares, "times": times.tolist(),
        "error": [[float(f"{value:.4g}") for value in each] for each in curves],
        **_bounds(settings["round_trips"], growths),
    }  # fmt: skip


def _mean(
    problem: Problem, method: Method, round_trip: float, times: Floats, seeds: int
) -> tuple[Floats, float]:
    """Mean error at `times` over that at the start, and exchanges completed over nominal ones."""
    errors, completed = np.zeros(len(times)), 0.0
    for seed in range(seeds):
        running = problem.run(method, round_trip, seed)
        for k, time in enumerate(times.tolist()):
            errors[k] += problem.error(_points(running.run(time)))
        completed += sum(each.context.stats.completed for each in running.workers.values())
    return errors / errors[0], completed / (seeds * times[-1] * sum(problem.topology.rates))


def _points(running: Cluster) -> Floats:
    for worker in running.workers.values():
        worker.refresh(running.now_s)
    return np.array([worker.slots.array[0] for worker in running.workers.values()])


def _bounds(round_trips: list[float], growths: list[float]) -> Figures:
    """Up to which delay the error falls, and from which on it grows, of those tried."""
    grows = [delay for delay, growth in zip(round_trips, growths, strict=True) if growth >= 0]
    first = min(grows, default=None)
    falls = [delay for delay in round_trips if first is None or delay < first]
    return {"converges_up_to": max(falls, default=None), "diverges_from": first}


def _compared(mine: Figures, other: Figures) -> Figures:
    """How much faster than gossip momentum is in the end, and by round trip from when on it is
    closer to agreement."""
    ratios = np.array(mine["growth"]) / other["growth"]
    ahead = {}
    for k, delay in enumerate(mine["round_trips"]):
        behind = np.array(mine["error"][k]) > np.array(other["error"][k])
        last = int(np.flatnonzero(behind).max(initial=-1)) + 1
        ahead[f"{delay:g}"] = mine["times"][last] if last < len(behind) else None
    return {"faster": {"least": ratios.min(), "most": ratios.max()}, "ahead_from": ahead}


def _row(problem: str, found: Figures) -> Figures:
    return {
        "": TITLES[problem],
        "method": found["label"],
        "growth without delay": found["growth"][0],
        "converges up to": found["converges_up_to"],
        "diverges from": found["diverges_from"],
        "longest round trip": found["round_trips"][-1],
        "growth there": found["growth"][-1],
        "exchanges there, of nominal": found["achieved"][-1],
    }


def plot(figures: Figures, folder: Path) -> None:
    figure, grid = style.panels(2, 2)
    for (left, right), (name, title) in zip(grid, TITLES.items(), strict=True):
        shown = figures["shown"][name]
        for method in figures[name].values():
            style.line(left, method["round_trips"], method["growth"], method["label"])
            curve = method["error"][method["round_trips"].index(shown)]
            style.line(right, method["times"], curve, method["label"])
        left.axhline(0, color=style.BLACK, linewidth=0.8)
        left.set_ylim(-0.22 if name == "a2cid2" else -0.06, 0.12)
        right.set_ylim(1e-6, 1e4)
        growth, caption = "growth per unit of time", f"{title}, round trip {shown:g}"
        style.finish(left, x="round trip", y=growth, title=title, legend=False)
        style.finish(right, x="time", y="error", title=caption, log="y", legend=False)
        right.legend(loc="lower left")
    style.save(figure, folder / "delays.svg")
