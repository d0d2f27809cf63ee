"""Messages that DADAO takes to an error of 1e-6, on rings and grids of growing size.

χ₁, χ₂ are those of a graph with one exchange per unit of time in all, the same on every edge. The
f_i of a larger graph are those of a smaller one and more; μ and L are those of the largest.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from decent.learning.ridge import Ridge
from decent.reproduce import Progress, convex, style
from decent.topology import family

Figures = dict[str, Any]


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    cases = [(name, n) for name, sizes in settings["workers"].items() for n in sizes]
    task = Ridge()
    whole = task.objective(max(n for _, n in cases))
    curvature, work = (whole.mu, whole.L), [n for _, n in cases]
    rows = []
    for k, (name, n) in enumerate(cases):
        progress(f"{name} of {n}", sum(work[:k]) / sum(work))
        rows.append(_case(task, name, n, curvature, settings))
    times = [row["time"] for row in rows]
    return {
        "mu": curvature[0],
        "L": curvature[1],
        "exponent": _exponent(rows, "√(χ₁χ₂)"),
        "graphs": {name: _family(rows, name) for name in settings["workers"]},
        "time": {
            "spread": max(times) / min(times),
            "bound": _bound(*curvature, settings["target"]),
            "rate": sum(row["messages"] for row in rows)
            / sum(row["rate"] * row["time"] for row in rows),
        },
        "table": rows,
    }


def _case(
    task: Ridge, name: str, n: int, curvature: tuple[float, float], settings: dict[str, Any]
) -> Figures:
    shape = family(name, n)
    replicas = max(2, settings["rows"] // n)
    track = convex.dadao(
        task.objective(n), shape, target=settings["target"] / 10, limit=settings["limit"],
        replicas=replicas, seed=settings["seed"], curvature=curvature,
    )  # fmt: skip
    needed = convex.needed(shape)
    return {
        "graph": name,
        "n": n,
        "√(χ₁χ₂)": needed / math.sqrt(2),
        "rate": needed,
        "time": track.spent("gradients", settings["target"]),
        "messages": track.spent("messages", settings["target"]),
        "replicas": replicas,
    }


def _family(rows: list[Figures], name: str) -> Figures:
    own = [row for row in rows if row["graph"] == name]
    return {"over_chi": _exponent(own, "√(χ₁χ₂)"), "over_n": _exponent(own, "n")}


def _exponent(rows: list[Figures], over: str) -> float:
    return convex.exponent([row[over] for row in rows], [row["messages"] for row in rows])


def _bound(mu: float, L: float, target: float) -> float:
    """The time that the theorem allows: 4 (1 + κ + κ²) e^(−rt) = target, κ = L/μ."""
    kappa = L / mu
    return math.log(4 * (1 + kappa + kappa**2) / target) / convex.theorem(mu, L)


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2)
    rows = figures["table"]
    for name in figures["graphs"]:
        own = [row for row in rows if row["graph"] == name]
        messages = [row["messages"] for row in own]
        style.line(left, [row["√(χ₁χ₂)"] for row in own], messages, f"{name}s")
        style.line(right, [row["n"] for row in own], messages, f"{name}s")
    ends = [min(row["√(χ₁χ₂)"] for row in rows), max(row["√(χ₁χ₂)"] for row in rows)]
    bound = [math.sqrt(2) * x * figures["time"]["bound"] for x in ends]
    style.guide(left, ends, bound, "the theorem's bound")
    style.finish(left, x="√(χ₁χ₂)", y="messages to 1e-6", log="xy")
    sizes = [row["n"] for row in rows if row["graph"] == rows[0]["graph"]]
    style.finish(right, x="workers", y="messages to 1e-6", log="xy", ticks=sizes)
    style.save(figure, folder / "messages.svg")
