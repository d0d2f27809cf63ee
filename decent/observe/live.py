"""The view of a run while it goes on: a bar for each worker in a terminal, a plain line every few
seconds elsewhere. Both write to the console they are given, stderr as a rule, are called with the
workers' statuses (see `progress`) and leave nothing behind them: the live view is wiped, and the
cursor restored, however the run ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Protocol, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from decent.observe.progress import STATES, Status, describe
from decent.observe.tables import figure

STYLES = {"starting": "dim", "training": "cyan", "merging": "yellow", "done": "green"}
SPARE_LINES = 10
EVERY_S = 3.0


class View(Protocol):
    """Shows statuses while it is entered, and beside them a `note`, if there is one."""

    note: str

    def __call__(self, statuses: list[dict[str, object]]) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...


def view(console: Console, title: str, names: Sequence[str]) -> LiveView | PlainView:
    """The view that suits the console; `names` are the workers'."""
    return LiveView(console, title, names) if console.is_terminal else PlainView(console)


def busy(console: Console, text: str) -> AbstractContextManager[object]:
    """Says that something without figures is going on, for as long as it is entered."""
    if console.is_terminal:
        return console.status(text)
    console.print(text, soft_wrap=True)
    return nullcontext()


@contextmanager
def telling(console: Console) -> Iterator[Callable[[str], None]]:
    """Says what is going on now: each text in place of the last, or a line each where there is no
    terminal."""
    if not console.is_terminal:
        yield partial(console.print, soft_wrap=True)
        return
    with console.status("") as status:
        yield status.update


class PlainView:
    """A line when the state changes, and every `every_s` seconds while it does not."""

    def __init__(
        self,
        console: Console,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._every_s, self._clock = console, every_s, clock
        self.note = ""
        self._statuses: Sequence[Status] = []
        self._last = ("", "")  # state and line printed last
        self._due_s = 0.0

    def __call__(self, statuses: Sequence[Status]) -> None:
        self._statuses = statuses
        state = describe(statuses).partition(":")[0]
        if state != self._last[0] or self._clock() >= self._due_s:
            self._print(state)

    def _print(self, state: str) -> None:
        line = ", ".join(filter(None, [describe(self._statuses), self.note]))
        if (state, line) != self._last:
            self._console.print(line, soft_wrap=True, highlight=False)
        self._last = (state, line)
        self._due_s = self._clock() + self._every_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._statuses:
            self._print(self._last[0])


class LiveView:
    """A table that is redrawn at each status: state, progress, loss and traffic of each worker."""

    def __init__(self, console: Console, title: str, names: Sequence[str]) -> None:
        self._console, self._title, self._names, self.note = console, title, names, ""
        self._start_s = time.monotonic()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __call__(self, statuses: Sequence[Status]) -> None:
        self._live.update(self.render(statuses), refresh=True)

    def render(self, statuses: Sequence[Status]) -> RenderableType:
        room = max(self._console.height - SPARE_LINES, 1)
        shown, hidden = statuses[:room], len(statuses) - room
        table = _table(shown, self._names)
        more = [Text(f"  … and {hidden} more", style="dim")] if hidden > 0 else []
        took = time.strftime("%H:%M:%S", time.gmtime(time.monotonic() - self._start_s))
        title = Text.assemble((self._title, "bold"), (f" · {took}", "dim"))
        line = ", ".join(filter(None, [describe(statuses), self.note]))
        return Group(title, "", table, *more, "", Text(line, style="dim"))

    def __enter__(self) -> Self:
        self._live.start()
        self([{"worker": i, "state": "starting"} for i in range(len(self._names))])
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def _table(statuses: Sequence[Status], names: Sequence[str]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, expand=True, pad_edge=False, show_edge=False, header_style="dim"
    )
    for heading, align in (("worker", "right"), ("state", "left"), ("", "left")):
        table.add_column(heading, justify=align, no_wrap=True, ratio=None if heading else 1)  # type: ignore[arg-type]
    for heading in ("step", "loss", "exchanges", "MB sent"):
        table.add_column(heading, justify="right", no_wrap=True)
    for status in statuses:
        table.add_row(*_row(status, names))
    return table


def _row(status: Status, names: Sequence[str]) -> list[RenderableType]:
    state, step, steps = (status.get(key) for key in ("state", "step", "steps"))
    style = STYLES.get(state or STATES[0], "red")
    worker = status["worker"]
    sent = status.get("bytes_sent")
    return [
        names[worker] if worker < len(names) else str(worker),
        Text(state or STATES[0], style=style),
        ProgressBar(total=steps or 1, completed=step or 0, complete_style=style),
        f"{step or 0}/{steps}" if steps else "",
        figure(status.get("loss"), ".3f"),
        figure(status.get("exchanges"), ".0f"),
        figure(None if sent is None else sent / 1e6, ".1f"),
    ]
