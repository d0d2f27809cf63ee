"""DADAO where exchanges are rarer or more frequent than its parameters count on.

Each worker has f_i(x) = ½ h_i (x − c_i)², x in one dimension. The distances of all slots of all
workers from where they come to rest, stacked as e [N], drift and jump linearly:

    drift         e' = F e
    exchange i–j  e ← e + u (v·e),    u = −(1_i − 1_j) ⊗ b,    v = (1_i − 1_j) ⊗ m
    gradient i    e ← e + u (v·e),    u = 1_i ⊗ k,             v = 1_i ⊗ (h_i probe + residual)

so that with the rates λ_k of the events, M = E[e eᵀ] and F̄ = F + Σ_k λ_k u_k v_kᵀ

    M' = F̄ M + M F̄ᵀ + Σ_k λ_k (v_kᵀ M v_k) u_k u_kᵀ.

Its exponent is the s at which R(s) has spectral radius 1, or twice F̄'s own if that is larger:

    R_kl(s) = λ_k v_kᵀ X_l v_k,    s X_l − F̄ X_l − X_l F̄ᵀ = u_l u_lᵀ

R has a row and a column for each kind of event only, and its radius falls in s. Σ z = Σ z̃ = 0.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from decent.dynamics import Dadao, System
from decent.learning.ridge import Quadratic
from decent.reproduce import Progress, convex, style
from decent.schedule import stream
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Superposed
from decent.simulation.ideal.run import initial_state
from decent.topology import Topology, family

Figures = dict[str, Any]
Floats = NDArray[np.float64]
BALANCED = ("z", "z̃")  # slots that sum to 0 over the workers
POINTS = 60
KINDS = ("published", "general")
DASHES = {"10": "-", "100": "--"}  # κ, and how it is drawn
CLOSE = 0.8  # of the designed rates
RATE = "rate / designed rate"


class Errors:
    """F̄ in its eigenvectors, and λ, u, v of every kind of event."""

    def __init__(self, system: System, topology: Topology, curvatures: Floats) -> None:
        self.basis = basis = _basis(system, topology.n)
        self.rates, u, v = _events(system, topology, curvatures)
        self.u, self.v, self.parameters = u @ basis, v @ basis, basis[:: len(system.slots)]
        flow = basis.T @ np.kron(np.eye(topology.n), system.flow) @ basis
        self.mean = flow + (self.u.T * self.rates) @ self.v
        self.values, vectors = np.linalg.eig(self.mean)
        heard, said = self.v @ vectors, np.linalg.solve(vectors, self.u.T).T
        self._pairs = heard[:, None] * said[None]

    def radius(self, s: float) -> float:
        """The spectral radius of R(s)."""
        weights = 1 / (s - self.values[:, None] - self.values)
        response = np.einsum("klq,klq->kl", self._pairs @ weights, self._pairs).real
        return float(np.abs(np.linalg.eigvals(self.rates[:, None] * response)).max())

    @property
    def exponent(self) -> float:
        """The growth of E|e|² per unit of time."""
        least = 2 * float(self.values.real.max())

        def excess(logarithm: float) -> float:
            return self.radius(least + math.exp(logarithm)) - 1

        low, high = math.log(1e-9), math.log(100.0)
        return least + (math.exp(brentq(excess, low, high)) if excess(low) > 0 else 0.0)

    def curve(self, start: Floats, times: Floats) -> Floats:
        """(1/n) Σ E(x_i − x*)² at `times`, for errors `start` [n·S] at time 0."""
        size = len(self.mean)

        def change(_: float, flat: Floats) -> Floats:
            M = flat.reshape(size, size)
            seen = self.rates * np.einsum("ki,ij,kj->k", self.v, M, self.v)
            drift = self.mean @ M
            return (drift + drift.T + (self.u.T * seen) @ self.u).ravel()

        first = np.outer(start @ self.basis, start @ self.basis).ravel()
        ends = (0.0, float(times[-1]))
        found = solve_ivp(change, ends, first, t_eval=times, rtol=1e-6, atol=0.0).y
        moments = found.T.reshape(-1, size, size)
        return np.einsum("ni,tij,nj->t", self.parameters, moments, self.parameters) / len(
            self.parameters
        )


def _basis(system: System, n: int) -> Floats:
    """[n·S, N], orthonormal: without the means of slots that sum to 0."""
    everyone, apart = np.eye(n), np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
    slots = zip(system.slots, np.eye(len(system.slots)), strict=True)
    parts = [np.kron(apart if name in BALANCED else everyone, one[:, None]) for name, one in slots]
    return np.hstack(parts)


def _events(
    system: System, topology: Topology, curvatures: Floats
) -> tuple[Floats, Floats, Floats]:
    """λ [K], u and v [K, n·S]."""
    one = np.eye(topology.n)
    ends = np.array([one[i] - one[j] for i, j in topology.edges])
    seen = curvatures[:, None] * system.probe + system.residual
    rates = np.concatenate([topology.rates, np.ones(topology.n)])
    u = np.vstack([-np.kron(ends, system.mix), np.kron(one, system.kick)])
    v = np.vstack(
        [np.kron(ends, system.message), [np.kron(*each) for each in zip(one, seen, strict=True)]]
    )
    return rates, u, v


class Problem:
    """Curvatures that are 1 and κ in turn, centres N(0, 1), and a graph at the designed rates."""

    def __init__(self, graph: str, n: int, kappa: float) -> None:
        self.topology = convex.designed(family(graph, n))
        self.kappa, self.curvatures = kappa, np.where(np.arange(n) % 2, kappa, 1.0)
        self.centres = stream(0, "centres").standard_normal(n)
        self.optimum = float(self.curvatures @ self.centres / self.curvatures.sum())

    def at(self, factor: float) -> Topology:
        return self.topology.with_rates([factor * rate for rate in self.topology.rates])

    def system(self, parameters: str, factor: float) -> System:
        """Published parameters count on the designed rates, general ones on those there are."""
        if parameters == "published":
            factor = 1.0
        rule = Dadao(1.0, self.kappa, parameters)
        return rule.system(self.topology.chi_1 / factor, self.topology.chi_2 / factor)

    def errors(self, parameters: str, factor: float) -> Errors:
        return Errors(self.system(parameters, factor), self.at(factor), self.curvatures)

    def threshold(self) -> float:
        """The factor at which the mean square neither grows nor falls with published parameters."""

        def excess(factor: float) -> float:
            return self.errors("published", factor).radius(0.0) - 1

        return float(brentq(excess, 0.3, 1.0, xtol=1e-4))

    def start(self) -> Floats:
        """[n·S]: how far from rest everything is where x = 0 and all duals are."""
        y = self.curvatures * (self.optimum - self.centres) - self.optimum / 2
        x, z = np.full_like(y, self.optimum), y.mean() - y
        return -np.column_stack([x, x, y, y, z, z]).ravel()

    def simulated(
        self, parameters: str, factor: float, times: Floats, replicas: int, seed: int
    ) -> Floats:
        """[times, replicas]: (1/n) Σ (x_i − x*)²."""
        objective = Quadratic(self.curvatures[:, None, None], self.centres[:, None])
        points = torch.zeros(self.topology.n * replicas, 1, dtype=objective.dtype)
        state = initial_state(Dadao(1.0, self.kappa), points)
        events = Superposed(self.at(factor), replicas, seed)
        engine = Engine(objective, self.system(parameters, factor), events, state)
        found = []
        for time in times.tolist():
            engine.run(time)
            errors = (engine.points() - self.optimum).square()
            found.append(errors.view(replicas, -1).mean(1).numpy())
        return np.array(found)


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    theorem = convex.theorem(1.0, settings["kappa"])
    swept = _swept(settings, progress)
    cases = _cases(settings, progress)
    simulated = _simulations(settings, progress)
    return {
        "theorem": theorem,
        "factors": settings["factors"],
        "swept": swept,
        "general": _proportional(swept, settings["factors"], theorem),
        "cases": {case["name"]: case for case in cases},
        "simulated": {f"{each['kind']}{100 * each['factor']:.0f}": each for each in simulated},
        "agreement": max(
            each["apart"] for each in simulated if each["exact"][-1] < each["exact"][-2]
        ),
        "table": [_row(case) for case in cases],
    }


def _swept(settings: dict[str, Any], progress: Progress) -> Figures:
    """Growth of the mean square at all factors, for each graph and both kinds of parameters."""
    found = Figures()
    for k, graph in enumerate(settings["graphs"]):
        progress(f"exponents on the {graph}", 0.1 * k / len(settings["graphs"]))
        problem = Problem(graph, settings["workers"], settings["kappa"])
        found[graph] = {
            kind: [problem.errors(kind, factor).exponent for factor in settings["factors"]]
            for kind in KINDS
        }
    return found


def _proportional(swept: Figures, factors: list[float], theorem: float) -> Figures:
    """How well the decay with general parameters follows the rates up to those designed."""
    decays = -np.array([each["general"] for each in swept.values()])
    ratios = (decays / factors)[:, np.array(factors) <= 1]
    designed = decays[:, factors.index(1.0)]
    return {
        "spread": (ratios.max(1) / ratios.min(1)).max(),
        "over_theorem": designed.min() / theorem,
        "beyond": float(np.mean(decays[:, -1] / designed)),
    }


def _cases(settings: dict[str, Any], progress: Progress) -> list[Figures]:
    cases = [(graph, n) for graph, sizes in settings["sizes"].items() for n in sizes]
    found = []
    for k, (graph, n) in enumerate(cases):
        progress(f"thresholds, {graph} of {n}", 0.1 + 0.1 * k / len(cases))
        problem = Problem(graph, n, settings["kappa"])
        thresholds = {kappa: Problem(graph, n, float(kappa)).threshold() for kappa in DASHES}
        growth = {kind: problem.errors(kind, CLOSE).exponent for kind in KINDS}
        found.append(
            {
                "name": f"{graph}{n}",
                "graph": graph,
                "n": n,
                "thresholds": thresholds,
                "growth": growth,
            }
        )
    return found


def _row(case: Figures) -> Figures:
    row = {"graph": case["graph"], "n": case["n"]}
    row |= {f"published, diverges below, κ = {k}": each for k, each in case["thresholds"].items()}
    return row | {f"{kind}, growth at {CLOSE}×": each for kind, each in case["growth"].items()}


def _simulations(settings: dict[str, Any], progress: Progress) -> list[Figures]:
    problem = Problem(settings["simulated"], settings["workers"], settings["kappa"])
    runs = [(kind, factor) for kind in KINDS for factor in settings[kind]]
    found = []
    for k, run in enumerate(runs):
        progress(f"{run[0]} parameters at {run[1]}×", 0.2 + 0.8 * k / len(runs))
        found.append(_simulation(problem, *run, settings))
    return found


def _simulation(problem: Problem, kind: str, factor: float, settings: dict[str, Any]) -> Figures:
    """Errors over that at the start: mean and median of the replicas, and the mean as it should
    be."""
    times = np.linspace(0, settings["until"], POINTS)
    each = problem.simulated(kind, factor, times, settings["replicas"], settings["seed"])
    exact = problem.errors(kind, factor).curve(problem.start(), times)
    curves = {"mean": each.mean(1), "median": np.median(each, 1), "exact": exact}
    short = {k: [float(f"{v:.4g}") for v in curve / exact[0]] for k, curve in curves.items()}
    apart = float(np.abs(np.log(curves["mean"] / exact)).max())
    above = float((each[-1] > each[0]).mean())
    return {
        "kind": kind, "factor": factor, "apart": apart, "above": above,
        "times": times.tolist(), **short,
    }  # fmt: skip


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, middle, right) = style.panels(3, width=4.8)
    _plot_growth(left, figures)
    _plot_thresholds(middle, list(figures["cases"].values()))
    for each in figures["simulated"].values():
        style.line(right, each["times"], each["mean"], f"{each['kind']}, {each['factor']}×")
        style.guide(right, each["times"], each["exact"])
    right.set_ylim(1e-3, 1e5)
    style.finish(right, x="time", y="mean square error", log="y", legend=False)
    right.legend(loc="lower left", ncols=2)
    style.save(figure, folder / "rates.svg")


def _plot_growth(axes: Any, figures: Figures) -> None:
    """Published parameters for each graph; with general ones the graphs hardly differ."""
    for graph, growth in figures["swept"].items():
        axes.plot(figures["factors"], growth["published"], label=graph)
    general = [growth["general"] for growth in figures["swept"].values()]
    axes.plot(figures["factors"], general[0], color=style.BLACK, label="general")
    for other in general[1:]:
        axes.plot(figures["factors"], other, color=style.BLACK)
    axes.axhline(0, color=style.BLACK, linewidth=0.8)
    axes.set_ylim(-0.06, 0.1)
    ticks = (0.1, 0.2, 0.5, 1, 2, 4)
    style.finish(
        axes, x=RATE, y="growth of E‖x − x*‖² per unit of time", log="x", ticks=ticks, legend=False
    )
    axes.legend(title="published", loc="upper right")


def _plot_thresholds(axes: Any, cases: list[Figures]) -> None:
    """By size: the factor below which the published parameters diverge."""
    graphs = list(dict.fromkeys(case["graph"] for case in cases))
    for (graph, colour), (kappa, dash) in product(
        zip(graphs, style.CYCLE, strict=False), DASHES.items()
    ):
        own = [case for case in cases if case["graph"] == graph]
        sizes, factors = [c["n"] for c in own], [c["thresholds"][kappa] for c in own]
        label = f"{graph}, κ = {kappa}"
        style.line(axes, sizes, factors, label, color=colour, linestyle=dash, marker="o")
    axes.set_ylim(0.3, 1)
    ticks = sorted({case["n"] for case in cases})
    style.finish(
        axes, x="workers", y=f"{RATE}, below it divergence", log="x", ticks=ticks, legend=False
    )
    axes.legend(loc="lower left", ncols=2)
