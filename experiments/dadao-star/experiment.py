"""Slopes of DADAO and MSDA per gradient and per message, on stars of growing size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from decent.learning.ridge import Ridge
from decent.reproduce import Progress, convex, style
from decent.simulation.rounds import MSDA
from decent.topology import family

Figures = dict[str, Any]
SAID = 14.0


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    task, rows, curves = Ridge(), [], []
    sizes = settings["workers"]
    for k, n in enumerate(sizes):
        progress(f"star of {n}", sum(sizes[:k]) / sum(sizes))
        row, curve = _case(task, n, settings)
        rows.append(row)
        curves.append(curve)
    by_gradient = [row["MSDA / DADAO"] for row in rows]
    by_message = [row["per message, DADAO / MSDA"] for row in rows]
    exponent = convex.exponent(sizes, by_message)
    return {
        "gradient_ratio": {"least": min(by_gradient), "most": max(by_gradient)},
        "message_exponent": exponent,
        "ahead_from": _crossing(sizes, by_message, exponent),
        "largest": {"n": sizes[-1], "message_ratio": by_message[-1]},
        "table": rows,
        "curves": curves,
    }


def _case(task: Ridge, n: int, settings: dict[str, Any]) -> tuple[Figures, Figures]:
    objective, star = task.objective(n), family("star", n)
    budget = {"target": settings["target"], "limit": settings["limit"]}
    mine = convex.dadao(
        objective, star, **budget, replicas=settings["replicas"], seed=settings["seed"]
    )
    other = convex.rounds(objective, star, MSDA(), **budget)
    row = {
        "n": n,
        "slope, DADAO": mine.slope(),
        "slope, MSDA": other.slope(),
        "MSDA / DADAO": other.slope() / mine.slope(),
        "per message, DADAO / MSDA": mine.slope("messages") / other.slope("messages"),
        "√n / 14": math.sqrt(n) / SAID,
        "messages, DADAO": mine.spent("messages"),
        "messages, MSDA": other.spent("messages"),
    }
    return row, {"n": n, "dadao": mine.thinned(60), "msda": other.thinned(60)}


def _crossing(sizes: list[int], ratios: list[float], exponent: float) -> float:
    """n at which the fitted power law is 1."""
    middle = sum(math.log(r) - exponent * math.log(n) for n, r in zip(sizes, ratios, strict=True))
    return math.exp(-middle / len(sizes) / exponent)


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2)
    rows = figures["table"]
    sizes = [row["n"] for row in rows]
    style.line(left, sizes, [1 / row["MSDA / DADAO"] for row in rows], "per gradient")
    style.line(left, sizes, [row["per message, DADAO / MSDA"] for row in rows], "per message")
    style.guide(left, sizes, [1 / SAID] * len(sizes), "1/14 and √n/14")
    style.guide(left, sizes, [row["√n / 14"] for row in rows])
    left.axhline(1, color=style.BLACK, linewidth=0.8)
    style.finish(left, x="workers", y="slope of DADAO / slope of MSDA", log="xy", ticks=sizes)
    for label in ("DADAO", "MSDA"):
        style.line(right, sizes, [row[f"messages, {label}"] for row in rows], label)
    style.finish(right, x="workers", y="messages to 1e-6", log="xy", ticks=sizes)
    style.save(figure, folder / "slopes.svg")
    _curves(figures, folder)


def _curves(figures: Figures, folder: Path) -> None:
    """The errors on the smallest and the largest star."""
    figure, grid = style.panels(2)
    for axes, case in zip(grid, (figures["curves"][0], figures["curves"][-1]), strict=True):
        for label, name in (("DADAO", "dadao"), ("MSDA", "msda")):
            curve = case[name]
            axes.plot(curve["messages"], curve["error"], label=label)
        axes.set_xlim(left=0)
        style.finish(axes, x="messages", y="error", title=f"star of {case['n']:,}", log="y")
    style.save(figure, folder / "errors.svg")
