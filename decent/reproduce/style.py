"""One style for all plots: SVG, labelled lines, colours that colour-blind readers tell apart.

    figure, (left, right) = style.panels(2)
    style.line(left, x, y, "DADAO")
    style.finish(left, x="gradients per worker", y="distance to the optimum", log="y")
    style.save(figure, folder / "convergence.svg")

Colours are those of Okabe and Ito ("Color Universal Design", 2008), in an order in which
neighbours differ in lightness too. matplotlib is imported when a function is called: it is the
extra `plots`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from decent.errors import MissingExtra

BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, BLACK = "#E69F00", "#56B4E9", "#777777", "#000000"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
MARKERS = "osD^vPX"

STYLE: dict[str, Any] = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "decent",
    "path.simplify_threshold": 0.3,
}


def require() -> None:
    """Refuse, by MissingExtra, to go on without matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtra(
            "matplotlib is not installed", "it, for plots", "install it: pip install decent[plots]"
        )


@contextmanager
def applied() -> Iterator[None]:
    """Everything drawn inside is in this style, with no window, and closed at the end."""
    require()
    from cycler import cycler
    from matplotlib import pyplot

    pyplot.switch_backend("svg")
    look: Any = {**STYLE, "axes.prop_cycle": cycler(color=CYCLE)}
    with pyplot.rc_context(look):
        try:
            yield
        finally:
            pyplot.close("all")


def panels(columns: int, rows: int = 1, width: float = 4.2, height: float = 3.3) -> tuple[Any, Any]:
    """A figure and its axes, rows × columns as matplotlib gives them; sizes in inches each."""
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width * columns, height * rows))


def line(axes: Any, x: Sequence[float], y: Sequence[float], label: str, **options: Any) -> None:
    """A line in the next colour; if its points are few, with a mark for each."""
    if len(x) <= 12:
        options = {"marker": MARKERS[len(axes.lines) % len(MARKERS)], **options}
    axes.plot(x, y, label=label, **options)


def guide(axes: Any, x: Sequence[float], y: Sequence[float], label: str = "") -> None:
    """What theory says, beside what was measured."""
    axes.plot(x, y, color=GREY, linestyle="--", linewidth=1.3, label=label or None, zorder=3)


def finish(
    axes: Any,
    *,
    x: str,
    y: str,
    title: str = "",
    log: str = "",
    ticks: Sequence[float] = (),
    legend: bool = True,
) -> None:
    """Names of the axes, which of them are logarithmic ("", "x", "y" or "xy"), where x is marked if
    not in the usual places, the legend."""
    from matplotlib.ticker import NullFormatter

    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_title(title, loc="left")
    for name in log:
        axes.set(**{f"{name}scale": "log"})
        getattr(axes, f"{name}axis").set_minor_formatter(NullFormatter())
    if len(ticks):
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_xticks([], minor=True)
    axes.grid(visible=True, which="major")
    if legend and axes.get_legend_handles_labels()[1]:
        axes.legend()


def save(figure: Any, path: Path) -> None:
    """As SVG, the same bytes for the same figure."""
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
