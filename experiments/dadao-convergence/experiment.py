"""The error of DADAO and of four round-based methods, for their gradients and their messages.

Functions, graphs, error and costs are those of `decent.reproduce.convex`. Every method starts at 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from decent.learning.convex import Convex
from decent.learning.logistic import Logistic
from decent.learning.ridge import Ridge
from decent.reproduce import Progress, convex, style
from decent.simulation.rounds import ADOM, MSDA, Continuized
from decent.topology import Topology, family

TASKS = {"ridge": Ridge, "logistic": Logistic}
NAMES = {
    "dadao": "DADAO",
    "msda": "MSDA",
    "adom": "ADOM+",
    "adom_mc": "ADOM+ M-C",
    "continuized": "continuized",
}
Figures = dict[str, Any]


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    cases: list[Figures] = []
    for k, case in enumerate(settings["cases"]):
        title = f"{case['task']}, {case['graph'].replace('_', ' ')} of {case['n']}"
        cases.append({"title": title, **case, **_case(case, settings, k, title, progress)})
    ratios = [_over_theorem(case, "dadao") for case in cases]
    return {
        "dadao": {"least": min(ratios), "most": max(ratios), "spread": _spread(cases)},
        "reached": {name: _reached(cases, name) for name in NAMES},
        "msda": {"ratio": median(_over(case, "msda", "dadao") for case in cases)},
        "table": [row for case in cases for row in _rows(case)],
        "cases": cases,
    }


def _case(
    case: Figures, settings: dict[str, Any], k: int, title: str, progress: Progress
) -> Figures:
    """Slopes, costs and curves of all methods on one problem."""
    objective = TASKS[case["task"]]().objective(case["n"])
    topology = family(case["graph"], case["n"], seed=settings["seed"])
    found: Figures = {}
    for number, (name, track) in enumerate(_methods(objective, topology, settings).items()):
        share = (k + number / len(NAMES)) / len(settings["cases"])
        progress(f"{title}: {NAMES[name]}", share)
        found[name] = _summary(track())
    return {
        "mu": objective.mu,
        "L": objective.L,
        "theorem": convex.theorem(objective.mu, objective.L),
        "methods": found,
    }


def _methods(
    objective: Convex, topology: Topology, settings: dict[str, Any]
) -> dict[str, Callable[[], convex.Track]]:
    seed, budget = settings["seed"], {"target": settings["target"], "limit": settings["limit"]}
    rounds = partial(convex.rounds, objective, topology, **budget)
    dadao = partial(convex.dadao, objective, topology, **budget)
    return {
        "dadao": partial(dadao, replicas=settings["replicas"], seed=seed),
        "msda": partial(rounds, MSDA()),
        "adom": partial(rounds, ADOM()),
        "adom_mc": partial(rounds, ADOM(multi_consensus=True)),
        "continuized": partial(rounds, Continuized(seed)),
    }


def _summary(track: convex.Track) -> Figures:
    return {
        "gradients": track.spent("gradients"),
        "messages": track.spent("messages"),
        "slope": track.slope(),
        "last": float(track.error[-1]),
        "curve": track.thinned(60),
    }


def _over_theorem(case: Figures, name: str) -> float:
    """The slope in units of DADAO's theorem."""
    return -case["methods"][name]["slope"] / case["theorem"]


def _over(case: Figures, name: str, other: str) -> float:
    return case["methods"][name]["slope"] / case["methods"][other]["slope"]


def _spread(cases: list[Figures]) -> float:
    """The fastest DADAO over the slowest among cases of the same f_i, at its most."""
    spreads = []
    for _, alike in groupby(cases, lambda case: (case["task"], case["n"])):
        slopes = [case["methods"]["dadao"]["slope"] for case in alike]
        spreads.append(min(slopes) / max(slopes))
    return max(spreads)


def _reached(cases: list[Figures], name: str) -> float:
    reached = [math.isfinite(case["methods"][name]["gradients"]) for case in cases]
    return sum(reached) / len(reached)


def _rows(case: Figures) -> list[Figures]:
    kinds: dict[str, Callable[[str], float]] = {
        "gradients": lambda name: case["methods"][name]["gradients"],
        "messages": lambda name: case["methods"][name]["messages"],
        "slope / −r": lambda name: _over_theorem(case, name),
    }
    return [
        {"case": case["title"], "": kind, **{label: value(name) for name, label in NAMES.items()}}
        for kind, value in kinds.items()
    ]


def plot(figures: Figures, folder: Path) -> None:
    for cost, label in (("gradients", "gradients per worker"), ("messages", "messages")):
        cases = figures["cases"]
        columns = min(3, len(cases))
        figure, grid = style.panels(columns, -(-len(cases) // columns))
        for axes, case in zip(grid.flat, cases, strict=False):
            _panel(axes, case, cost)
            style.finish(axes, x=label, y="error", title=case["title"], log="xy", legend=False)
        handles, names = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        style.save(figure, folder / f"{cost}.svg")


def _panel(axes: Any, case: Figures, cost: str) -> None:
    for (name, label), colour in zip(NAMES.items(), style.CYCLE, strict=False):
        curve = case["methods"][name]["curve"]
        axes.plot(curve[cost], curve["error"], color=colour, label=label)
