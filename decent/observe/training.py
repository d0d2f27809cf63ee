"""Trainings side by side while they go on, and what a router and an ensemble are worth, in a
terminal. A status says name, state, step, steps and loss.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from decent.observe.experts import ABSENT, listing

EVERY_S = 3.0
Status = Mapping[str, Any]


def training(console: Console) -> Trainings:
    """The view of trainings; to be entered, and called with their statuses."""
    return Trainings(console)


class Trainings:
    """A bar for each training in a terminal, elsewhere a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console, self._due_s = console, 0.0
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"), TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(), console=console, transient=True, refresh_per_second=5,
        )  # fmt: skip
        self._ids: dict[str, Any] = {}

    def __call__(self, statuses: Sequence[Status]) -> None:
        if self._console.is_terminal:
            for each in statuses:
                self._update(each)
        elif time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + EVERY_S
            self._console.print(line(statuses), soft_wrap=True)

    def _update(self, status: Status) -> None:
        name = status["name"]
        if name not in self._ids:
            self._ids[name] = self._bars.add_task(name, total=None, state="", loss="")
        self._bars.update(
            self._ids[name], completed=status["step"], total=status.get("steps"),
            state=status["state"], loss=_figure(status.get("loss")),
        )  # fmt: skip

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()


def line(statuses: Sequence[Status]) -> str:
    """All of them: "expert_0 training 300/1500 loss 0.412, expert_1 waiting"."""
    return ", ".join(
        f"{each['name']} {each['state']}"
        + (f" {each['step']}/{each['steps']} loss {_figure(each['loss'])}" if each["step"] else "")
        for each in statuses
    )


def calibration(report: Mapping[str, Any]) -> RenderableType:
    """A router at each time: cross-entropy, accuracy, entropy; and whether it knows π."""
    table = listing("t", "cross-entropy", "entropy", "accuracy")
    for row in report["rows"]:
        table.add_row(
            f"{row['low']:.1f} – {row['high']:.1f}", f"{row['cross_entropy']:.3f}",
            f"{row['entropy']:.3f}", f"{row['accuracy']:.1%}",
        )  # fmt: skip
    whose = "held-out samples" if report["held_out"] else "training samples: none are held out"
    parts: list[RenderableType] = [
        Text(f"on {whose}; nats; π alone has {report['entropy_of_pi']:.3f}\n"),
        table,
    ]
    error, most = report["prior_error"], report["tolerance"]
    text = f"\nat t = 1 its mean is {error:.3f} from π (total variation), tolerance {most}"
    if error > most:
        text += ": too far. Train it longer, or with router.times = uniform"
    return Group(*parts, Text(text, style="yellow" if error > most else ""))


def losses(report: Mapping[str, Any]) -> RenderableType:
    """A row for each model and strategy; bits per dimension below, where they were asked for."""
    table = listing("", "loss", f"against {report['against']}", "experts", "multiply-adds")
    likely = listing("", "bits per dimension")
    for row in report["rows"]:
        table.add_row(
            row["name"], _estimate(row, ".4f"), _estimate(row["difference"], "+.4f"),
            f"{row['active']:.2f}", f"{row['multiply_adds']:,}",
        )  # fmt: skip
        likely.add_row(row["name"], _estimate(row["bits"], ".3f"))
    parts: list[RenderableType] = [
        table,
        Text(f"\n{report['samples']:,} held-out samples, per evaluation"),
    ]
    if report["rows"][0]["bits"] is not None:
        parts += [Text(), likely]
    return Group(*parts)


def _estimate(value: Mapping[str, float] | None, form: str) -> str:
    return ABSENT if value is None else f"{value['mean']:{form}} ± {value['error']:{form[-3:]}}"


def _figure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3f}"
