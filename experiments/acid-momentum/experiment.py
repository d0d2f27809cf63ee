"""Consensus with and without the momentum of A²CiD², by itself and under training.

On a graph that looks the same from every worker the second moments of all states are a circulant
matrix. Its blocks C_q [S, S] at frequencies q ≠ 0 (q = 0 is the mean, which stands apart) obey

    C_q' = A_q C_q + C_q A_qᵀ + Σ_c ℓ_cq v_c b bᵀ,    A_q = A − Σ_c ℓ_cq b mᵀ
    v_c  = (2/n) Σ_p (1 − cos(2πpc/n)) mᵀ C_p m,      ℓ_cq = r_c (1 − cos(2πqc/n))

with A, b, m of `System`, and r_c the exchanges of a worker per unit of time with workers c places
off. Per coordinate E(1/n) Σ ‖x_i − x̄‖² = (1/n) Σ_q C_q[x, x]. In the end it falls as e^(−ct); −c is
the right-most eigenvalue, and that of all second moments, whose generator preserves positivity.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decent.config import from_dict
from decent.dynamics import Acid, Dynamics, Gossip, System
from decent.errors import TaskError
from decent.learning.consensus import Standstill
from decent.learning.task import load
from decent.reproduce import Progress, convex, style
from decent.schedule import stream
from decent.simulation import simulate
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Superposed
from decent.simulation.ideal.run import initial_state
from decent.topology import Topology, family

Figures = dict[str, Any]
Floats = NDArray[np.float64]
LABELS = {"gossip": "gossip", "a2cid2": "A²CiD²"}
METHODS: dict[str, Dynamics] = {"gossip": Gossip(), "a2cid2": Acid()}
FROM, TO = 2.0, 8.0  # what is fitted: times 1/c
POINTS = 60
WORKERS = 16  # that train, on a ring
MEASURES = {
    "local": "accuracy of local models",
    "merged": "accuracy of the merged model",
    "consensus": "consensus distance",
}


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    cases = _consensus(settings, progress)
    trained, skipped = _training(settings["trained"], progress)
    ratios = [case[m]["measured"] / case[m]["in the window"] for case in cases for m in METHODS]
    return {
        "consensus": {case["name"]: case for case in cases},
        "fit": {"least": min(ratios), "most": max(ratios)},
        "scaling": _scaling(cases),
        "trained": trained,
        "skipped": skipped,
        "table": [_row(case) for case in cases]
        + [row for task in trained.values() for row in _rows(task)],
    }


# consensus alone


def _consensus(settings: dict[str, Any], progress: Progress) -> list[Figures]:
    cases = list(product(settings["graphs"], settings["workers"]))
    found = []
    for k, (graph, n) in enumerate(cases):
        progress(f"consensus, {graph} of {n}", 0.3 * k / len(cases))
        topology = family(graph, n).with_models_per_worker(1.0)
        methods = {name: _decay(topology, rule, settings) for name, rule in METHODS.items()}
        chi = {"chi_1": topology.chi_1, "chi_2": topology.chi_2}
        name = f"{graph}{n}"
        found.append({"name": name, "graph": graph, "n": n, **chi, **methods})
    return found


def _decay(topology: Topology, rule: Dynamics, settings: dict[str, Any]) -> Figures:
    """c, and the slopes of ln E(1/n) Σ ‖x_i − x̄‖² from 2/c to 8/c, measured and expected."""
    system = rule.system(topology.chi_1, topology.chi_2)
    rates, amounts = _exact(topology, system)
    c = -float(rates.real.max())
    times = np.geomspace(0.1, TO / c, POINTS)
    expected = (np.exp(np.outer(times, rates)) @ amounts).real
    exchanges = TO / c * sum(topology.rates)
    replicas = int(np.clip(settings["budget"] / exchanges, 4, settings["replicas"]))
    measured = _simulated(topology, rule, times, replicas, settings)
    late = times >= FROM / c
    slopes = [-np.polyfit(times[late], np.log(curve[late]), 1)[0] for curve in (measured, expected)]
    return {
        "exact": c, "measured": slopes[0], "in the window": slopes[1], "replicas": replicas,
        "times": _short(times), "distances": _short(measured), "expected": _short(expected),
    }  # fmt: skip


def _exact(topology: Topology, system: System) -> tuple[Any, Any]:
    """Rates s and amounts a such that E(1/n) Σ ‖x_i − x̄‖² = Σ a e^(st), from x_i ~ N(0, 1)."""
    n, size = topology.n, len(system.slots)
    q = np.arange(1, n // 2 + 1)  # n − q is the same
    alike = np.where(2 * q == n, 1, 2)
    chords = _chords(topology)
    waves = 1 - np.cos(2 * np.pi / n * np.outer(list(chords), q))
    mixing = np.array(list(chords.values()))[:, None] * waves
    b, m = (np.kron(vector, vector) for vector in (system.mix, system.message))
    generator = np.einsum("cq,cp,s,t->qspt", mixing, 2 / n * alike * waves, b, m)
    for k, speed in enumerate(mixing.sum(0)):
        drift = np.kron(system.flow - speed * np.outer(system.mix, system.message), np.eye(size))
        swap = np.arange(size**2).reshape(size, size).T.ravel()
        generator[k, :, k] += drift + drift[swap][:, swap]
    rates, vectors = np.linalg.eig(generator.reshape(len(q) * size**2, -1))
    parameters = np.kron(alike, np.eye(size**2)[0]) / n
    return rates, (parameters @ vectors) * np.linalg.solve(vectors, np.ones(len(vectors)))


def _chords(topology: Topology) -> Counter[int]:
    """r_c by c."""
    found: Counter[int] = Counter()
    for (i, j), rate in zip(topology.edges, topology.rates, strict=True):
        found[min(j - i, topology.n - j + i)] += 2 * rate / topology.n  # type: ignore[assignment]
    return found


def _simulated(
    topology: Topology, rule: Dynamics, times: Floats, replicas: int, settings: dict[str, Any]
) -> Floats:
    shape = replicas, topology.n, settings["coordinates"]
    points = torch.from_numpy(stream(settings["seed"], "points").standard_normal(shape))
    engine = Engine(
        Standstill(topology.n, shape[2], points.dtype),
        rule.system(topology.chi_1, topology.chi_2),
        Superposed(topology, replicas, settings["seed"], gradients=False),
        initial_state(rule, points.flatten(0, 1)),
    )
    found = []
    for time in times.tolist():
        engine.run(time)
        found.append(float(engine.points().view(shape).var(1, correction=0).mean()))
    return np.array(found)


def _scaling(cases: list[Figures]) -> Figures:
    """p of c ∝ n^p, for each kind of graph and method."""
    graphs = dict.fromkeys(case["graph"] for case in cases)
    own = {graph: [case for case in cases if case["graph"] == graph] for graph in graphs}
    return {
        graph: {m: convex.exponent(*_column(rows, m)) for m in METHODS}
        for graph, rows in own.items()
    }


def _column(cases: list[Figures], method: str) -> tuple[list[float], list[float]]:
    return [case["n"] for case in cases], [case[method]["exact"] for case in cases]


def _row(case: Figures) -> Figures:
    row = {"": f"{case['graph']} of {case['n']}", "measure": "decay per unit of time"}
    row |= {label: case[method]["measured"] for method, label in LABELS.items()}
    return row | {f"{label}, exact": case[method]["exact"] for method, label in LABELS.items()}


# training


def _training(cases: list[Figures], progress: Progress) -> tuple[Figures, Figures]:
    """What came out for each task, and why others were left out."""
    found, skipped = Figures(), Figures()
    for k, case in enumerate(cases):
        try:
            load(case["task"], 0)
        except TaskError as error:
            skipped[case["task"]] = str(error)
            progress(f"{case['task']} is skipped: {error}", 0.3 + 0.7 * (k + 1) / len(cases))
            continue
        found[case["task"]] = {**case, "results": []}
        for part, rate in enumerate(case["rates"]):
            share = (k + part / len(case["rates"])) / len(cases)
            progress(f"{case['task']}, {rate} models per step", 0.3 + 0.7 * share)
            found[case["task"]]["results"].append(_compared(case, rate))
    return found, skipped


def _compared(case: Figures, rate: float) -> Figures:
    """Both methods at one rate: means over the seeds, and over both how they differ."""
    runs = {m: [_trained(case, m, rate, seed) for seed in range(case["seeds"])] for m in METHODS}
    means = {
        m: {key: mean(run[key] for run in each) for key in (*MEASURES, "models")}
        for m, each in runs.items()
    }
    pairs = list(zip(runs["a2cid2"], runs["gossip"], strict=True))
    gains = [mine["local"] - other["local"] for mine, other in pairs]
    ratio = means["gossip"]["consensus"] / means["a2cid2"]["consensus"]
    return {"rate": rate, **means, "least gain": min(gains), "gain": mean(gains), "closer": ratio}


def _trained(case: Figures, method: str, rate: float, seed: int) -> Figures:
    """One run; the consensus distance is the mean over its second half."""
    config = from_dict(
        {
            "seed": seed, "workers": WORKERS, "steps": case["steps"], "dynamics": method,
            "task": {"name": case["task"], "alpha": case["alpha"]},
            "topology": {"name": "ring", "rate": rate},
            "simulation": {"fidelity": "ideal", "records": 20},
        }
    )  # fmt: skip
    outcome = simulate(config)
    return {
        "local": mean(worker["metrics"]["accuracy"] for worker in outcome["results"]),
        "merged": outcome["merged"]["accuracy"],
        "consensus": mean(point["consensus"] for point in outcome["curve"][-10:]),
        "models": sum(worker["stats"]["models_sent"] for worker in outcome["results"]),
    }


def _rows(task: Figures) -> list[Figures]:
    exact = {f"{label}, exact": None for label in LABELS.values()}
    return [
        {
            "": f"{task['task']}, {result['rate']} models per step",
            "measure": measure,
            **{label: result[method][key] for method, label in LABELS.items()},
            **exact,
        }
        for result in task["results"]
        for key, measure in MEASURES.items()
    ]


# plots


def plot(figures: Figures, folder: Path) -> None:
    cases = list(figures["consensus"].values())
    columns = len({case["n"] for case in cases})
    figure, grid = style.panels(columns, len(cases) // columns)
    for axes, case in zip(np.ravel(grid), cases, strict=True):
        for method, label in LABELS.items():
            curve = case[method]
            style.line(axes, curve["times"], curve["distances"], label)
            style.guide(axes, curve["times"], curve["expected"], "exact" * (method == "a2cid2"))
        axes.set_ylim(1e-4, 1.5)
        style.finish(axes, x="time", y="consensus distance", title=_row(case)[""], log="xy")
    style.save(figure, folder / "consensus.svg")
    _plot_training(list(figures["trained"].values()), folder)


def _plot_training(tasks: list[Figures], folder: Path) -> None:
    figure, grid = style.panels(len(tasks), 2)
    for (upper, lower), task in zip(np.reshape(grid, (2, -1)).T, tasks, strict=True):
        rates = [result["rate"] for result in task["results"]]
        for (method, label), colour in zip(LABELS.items(), style.CYCLE, strict=False):
            found = {key: [result[method][key] for result in task["results"]] for key in MEASURES}
            style.line(upper, rates, found["local"], f"{label}, local", color=colour)
            style.line(upper, rates, found["merged"], f"{label}, merged", color=colour, ls=":")
            style.line(lower, rates, found["consensus"], label, color=colour)
        sent = "models sent per worker and step"
        style.finish(upper, x=sent, y="accuracy", title=task["task"], log="x")
        style.finish(lower, x=sent, y="consensus distance", log="xy")
    style.save(figure, folder / "training.svg")


def _short(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
