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
FROM, TO = 2.0, 6.0  # what is fitted: times 1/c
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
        "table": [row for case in cases for row in _decay_rows(case)]
        + [row for task in trained.values() for row in _training_rows(task)],
    }


# consensus alone


def _consensus(settings: dict[str, Any], progress: Progress) -> list[Figures]:
    cases = list(product(settings["graphs"], settings["workers"]))
    found = []
    for k, (graph, n) in enumerate(cases):
        progress(f"consensus, {graph} of {n}", 0.3 * k / len(cases))
        topology = family(graph, n).with_models_per_worker(1.0)
        modes = {name: Modes(topology, rule) for name, rule in METHODS.items()}
        case = {"name": f"{graph}{n}", "graph": graph, "n": n}
        case |= {"chi_1": topology.chi_1, "chi_2": topology.chi_2}
        case |= {name: _decay(each, settings) for name, each in modes.items()}
        case["a2cid2"] |= _ahead(modes)
        found.append(case)
    return found


class Modes:
    """`speeds` s and `amounts` a such that E(1/n) Σ ‖x_i − x̄‖² = Σ a e^(st), from x_i ~ N(0, 1)."""

    def __init__(self, topology: Topology, rule: Dynamics) -> None:
        self.topology, self.rule = topology, rule
        system = rule.system(topology.chi_1, topology.chi_2)
        size, q = len(system.slots), np.arange(1, topology.n // 2 + 1)
        weights = np.where(2 * q == topology.n, 1, 2) / topology.n  # n − q is the same as q
        generator = _generator(topology, system, q, weights)
        self.speeds, vectors = np.linalg.eig(generator)
        parameters = np.kron(weights, np.eye(size**2)[0])
        start = np.ones(len(generator))
        self.amounts = (parameters @ vectors) * np.linalg.solve(vectors, start)
        self.c = -float(self.speeds.real.max())

    def distance(self, times: Floats) -> Floats:
        found: Floats = (np.exp(np.outer(times, self.speeds)) @ self.amounts).real
        return found


def _generator(topology: Topology, system: System, q: Floats, weights: Floats) -> Floats:
    """[Q·S², Q·S²]: what C_q' is of all C_p."""
    chords, one = _chords(topology), np.eye(len(system.slots))
    waves = 1 - np.cos(2 * np.pi / topology.n * np.outer(list(chords), q))
    mixing = np.array(list(chords.values()))[:, None] * waves
    b, m = (np.kron(vector, vector) for vector in (system.mix, system.message))
    found = np.einsum("cq,cp,s,t->qspt", mixing, 2 * weights * waves, b, m)
    for k, speed in enumerate(mixing.sum(0)):
        A = system.flow - speed * np.outer(system.mix, system.message)
        found[k, :, k] += np.kron(A, one) + np.kron(one, A)
    return found.reshape(len(q) * one.size, -1)


def _chords(topology: Topology) -> dict[int, float]:
    """r_c by c."""
    found: dict[int, float] = {}
    for (i, j), rate in zip(topology.edges, topology.rates, strict=True):
        chord = min(j - i, topology.n - j + i)
        found[chord] = found.get(chord, 0.0) + 2 * rate / topology.n
    return found


def _ahead(modes: dict[str, Modes]) -> Figures:
    """From when on momentum is closer to agreement than gossip, and the distance then."""
    times = np.geomspace(0.1, 2 * TO / modes["a2cid2"].c, 1000)
    mine, other = (modes[name].distance(times) for name in ("a2cid2", "gossip"))
    last = int(np.flatnonzero(mine > other).max(initial=0))
    return {"ahead from": float(times[last]), "ahead below": float(mine[last])}


def _decay(modes: Modes, settings: dict[str, Any]) -> Figures:
    """c, and the slopes of ln E(1/n) Σ ‖x_i − x̄‖² from 2/c to 6/c, measured and expected."""
    times = np.geomspace(0.1, TO / modes.c, POINTS)
    exchanges = times[-1] * sum(modes.topology.rates)
    replicas = max(4, int(min(settings["budget"] / exchanges, settings["rows"] / modes.topology.n)))
    measured = _simulated(modes.topology, modes.rule, times, replicas, settings)
    late, expected = times >= FROM / modes.c, modes.distance(times)
    slopes = [-np.polyfit(times[late], np.log(curve[late]), 1)[0] for curve in (measured, expected)]
    return {
        "exact": modes.c, "measured": slopes[0], "in the window": slopes[1], "replicas": replicas,
        "times": _short(times), "distances": _short(measured), "expected": _short(expected),
    }  # fmt: skip


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


def _decay_rows(case: Figures) -> list[Figures]:
    """While it is followed, and in the end, which cannot be seen in a simulation."""
    return [
        _row(_title(case), "decay, from 2/c to 6/c", case, ("measured", "in the window")),
        _row(_title(case), "decay in the end, c", case, (None, "exact")),
        _row(_title(case), "ahead below a distance of", case, (None, "ahead below")),
    ]


def _title(case: Figures) -> str:
    return f"{case['graph']} of {case['n']}"


def _row(title: str, measure: str, found: Figures, keys: tuple[str | None, str | None]) -> Figures:
    row = {"": title, "measure": measure}
    for key, suffix in zip(keys, ("", ", exact"), strict=True):
        row |= {f"{label}{suffix}": found[m].get(key) for m, label in LABELS.items()}
    return row


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
    return {
        "rate": rate, **means, "gain": mean(gains), "least gain": min(gains),
        "closer": means["gossip"]["consensus"] / means["a2cid2"]["consensus"],
        "models": means["a2cid2"]["models"] / means["gossip"]["models"],
    }  # fmt: skip


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


def _training_rows(task: Figures) -> list[Figures]:
    return [
        _row(f"{task['task']}, {result['rate']} models per step", measure, result, (key, None))
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
        axes.set_ylim(5e-4, 1.5)
        style.finish(axes, x="time", y="consensus distance", title=_title(case), log="xy")
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
        style.finish(upper, x=sent, y="accuracy", title=task["task"], log="x", ticks=rates)
        style.finish(lower, x=sent, y="consensus distance", log="xy", ticks=rates)
    style.save(figure, folder / "training.svg")


def _short(values: Floats) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
