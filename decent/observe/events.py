"""The view of a simulation that works through events: how far it is, how fast, how long it takes.

It is called as the view of a run is (see `live`), with one status for all workers: `time` and `end`
in expected steps, `events`, `events_per_s`, `loss` and `measures`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

EVERY_S = 3.0
Status = Mapping[str, Any]


class EventView:
    """A bar in a terminal, and a line every few seconds elsewhere."""

    def __init__(
        self, console: Console, title: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._clock, self._due_s = console, clock, -math.inf
        self._last: Status | None = None
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f} %"),
            TextColumn("[dim]{task.fields[facts]}"), TimeRemainingColumn(),
            console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task(title, total=None, facts="")

    def __call__(self, statuses: Sequence[Status]) -> None:
        self._last = now = statuses[0]
        if self._console.is_terminal:
            self._bar.update(self._task, total=now["end"], completed=now["time"], facts=facts(now))
        elif self._clock() >= self._due_s:
            self._print(now)

    def _print(self, now: Status) -> None:
        self._due_s = self._clock() + EVERY_S
        line = f"time {now['time']:.6g} of {now['end']:.6g}: {facts(now)}"
        self._console.print(line, soft_wrap=True, highlight=False)
        self._last = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
        elif self._last is not None:
            self._print(self._last)


def facts(now: Status) -> str:
    """ "1.2 M events, 340 k/s, loss 0.31, consensus 2.1e-05"."""
    parts = [f"{short(now['events'])} events", f"{short(now['events_per_s'])}/s"]
    if now.get("loss") is not None:
        parts.append(f"loss {now['loss']:.3g}")
    parts += [f"{name} {value:.3g}" for name, value in (now.get("measures") or {}).items()]
    return ", ".join(parts)


def short(count: float) -> str:
    """A count with three digits and k, M or G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return f"{count:.0f}"
