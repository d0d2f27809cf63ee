"""What a run came to, in a terminal: a row for each worker, then the models the run made, the
merged one standing out, then faults in words. Also the table of tasks.

The table of workers sets itself as wide as it can: if it does not fit, first the space between its
columns goes, then the columns that can be done without, the first of `SPARE` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Summary = Mapping[str, Any]
ABSENT = "–"
MOST = 32
"""Workers that get a row of their own, at most."""
SPARE = ("MB\nrecv", "skipped", "models\nsent", "exchanges\nanswered", "MB\nsent")


@dataclass(frozen=True)
class Column:
    """A column of the table of workers: heading, and the cell made of a worker's part."""

    heading: str
    cell: Callable[[Mapping[str, Any]], str]


def results(summary: Summary) -> RenderableType:
    """All there is to show of a finished run."""
    parts: list[RenderableType] = [
        Text(headline(summary), style="bold"),
        Text(effort(summary) + "\n", style="dim"),
        _Workers(summary),
    ]
    if summary["local_mean"] or summary["merged"] or summary["compare"]:
        parts.append(Padding(models(summary), (1, 0, 0, 0)))
    if summary.get("ideal"):
        parts.append(Padding(last(summary["ideal"]), (1, 0, 0, 0)))
    if summary["interrupted"]:
        merged = "" if summary["merged"] else "; nothing was merged"
        parts.append(Text(f"\nthe figures are those of the run so far{merged}", "yellow"))
    if summary["faults"]:
        parts.append(Text("\n" + "\n".join(faults(summary)), style="red"))
    return Group(*parts)


def last(ideal: Mapping[str, Any]) -> Text:
    """Where the curves end: "at time 400: 400 gradients each, …, consensus 1.2e-09"."""
    end = dict(ideal["last"])
    time, gradients, exchanges = (end.pop(key, 0.0) for key in ("time", "gradients", "exchanges"))
    measures = "".join(f", {name} {value:.3g}" for name, value in end.items() if value is not None)
    return Text(
        f"at time {time:.6g}: {gradients:.6g} gradients each, {exchanges:,.0f} exchanges{measures}"
    )


def headline(summary: Summary) -> str:
    """What ran, and where."""
    topology = summary["topology"]
    workers = f"{topology['n']} worker{'s' * (topology['n'] != 1)}"
    script = summary["script"]
    what = " ".join(script) if script else summary["task"]
    if summary["merge"] == "apart":
        return f"{what} · {workers}, kept apart"
    parts = [
        what,
        f"{workers}, {topology['name']}" if topology["n"] > 1 else workers,
        f"{summary['dynamics']}, {summary['schedule']}",
        f"{topology['models_per_step']:.3g} models per step",
    ]
    return " · ".join(parts)


def effort(summary: Summary) -> str:
    """How long it took, and how long it would have where time was virtual."""
    took = f"{figure(summary['wall_s'], '.1f')} s"
    text = took if summary["script"] else f"{summary['steps']} steps in {took}"
    if summary["interrupted"]:
        text = f"interrupted after {took}"
    if (ideal := summary.get("ideal")) is not None:
        return f"{text}, {ideal['events']:,} events, {ideal['events_per_s']:,.0f} per second"
    virtual_s = summary.get("virtual_s")
    return text if virtual_s is None else f"{text}, {virtual_s:.1f} s of virtual time"


def faults(summary: Summary) -> list[str]:
    """Each fault in words: "worker 2 died after 3.1 s: killed by signal 9; merged without it"."""
    return [_fault(summary, fault) for fault in summary["faults"]]


def _fault(summary: Summary, fault: Mapping[str, Any]) -> str:
    workers = {each["id"]: each for each in summary["workers"]}
    worker = fault["worker"]
    name = workers[worker]["name"] if worker in workers else worker
    at = fault.get("at_s")
    after = f" after {at:.1f} s" if at is not None else ""
    without = summary["merged_among"] and worker not in summary["merged_among"]
    return f"worker {name} died{after}: {fault['what']}" + "; merged without it" * bool(without)


def models(summary: Summary) -> Table:
    """The task's measures of the models that the run made, and of those it is compared with."""
    rows = _models(summary)
    names = list(dict.fromkeys(name for _, metrics, _ in rows for name in metrics))
    table = Table(box=None, pad_edge=False, show_header=bool(names), header_style="dim")
    for heading in ("", *names):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for label, metrics, style in rows:
        table.add_row(label, *(_metric(name, metrics.get(name)) for name in names), style=style)
    return table


def _models(summary: Summary) -> list[tuple[str, Mapping[str, Any], str]]:
    """Label, measures and style of each model there is."""
    count = len(summary["merged_among"])
    among = f", {count} of {summary['topology']['n']} workers" if count else ""
    compare = summary["compare"] or {}
    rows = [
        ("mean of local models", summary["local_mean"], ""),
        (f"merged (once, at the end{among})", summary["merged"], "bold green"),
        ("isolated, then merged", compare.get("isolated", {}).get("merged"), "dim"),
        ("synchronous all-reduce", compare.get("all-reduce", {}).get("merged"), "dim"),
    ]
    return [(label, metrics, style) for label, metrics, style in rows if metrics]


class _Workers:
    """The table of workers, as wide as the terminal lets it be."""

    def __init__(self, summary: Summary) -> None:
        workers = summary["workers"]
        self._workers = workers[: MOST if len(workers) <= MOST else 4]
        self._hidden = len(workers) - len(self._workers)
        self._columns = _columns(self._workers)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in self._variants():
            if Measurement.get(console, options.update(width=1000), table).maximum <= (
                options.max_width
            ):
                break
        yield table
        if self._hidden:
            yield Text(f"… and {self._hidden:,} more, in summary.json", style="dim")

    def _variants(self) -> Iterable[Table]:
        """Ever narrower; the first that fits is taken."""
        for spare in range(len(SPARE) + 1):
            kept = [each for each in self._columns if each.heading not in SPARE[:spare]]
            for gap in (2, 1, 0):
                yield _table(kept, self._workers, gap)


def _table(columns: Sequence[Column], workers: Iterable[Mapping[str, Any]], gap: int) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, gap, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="dim",
    )
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for worker in workers:
        cells = (column.cell(worker) for column in columns)
        table.add_row(*cells, style="" if worker["alive"] else "red")
    return table


def _columns(workers: Sequence[Mapping[str, Any]]) -> list[Column]:
    metrics = dict.fromkeys(name for each in workers for name in each["metrics"])
    return [
        Column("worker", lambda worker: str(worker["name"])),
        Column("steps", lambda worker: figure(worker["steps"], "d")),
        Column("train\nloss", lambda worker: figure(worker["loss"], ".3f")),
        Column("started", lambda worker: _exchanges(worker, "started")),
        Column("exchanges\nanswered", lambda worker: _exchanges(worker, "answered")),
        Column("skipped", _skipped),
        Column("models\nsent", lambda worker: figure(worker["models_sent"], ".1f")),
        Column("MB\nsent", lambda worker: _megabytes(worker, "sent")),
        Column("MB\nrecv", lambda worker: _megabytes(worker, "received")),
        *(Column(f"local\n{name}", _measure(name)) for name in metrics),
    ]


def _measure(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda worker: _metric(name, worker["metrics"].get(name))


def _exchanges(worker: Mapping[str, Any], key: str) -> str:
    return figure((worker["exchanges"] or {}).get(key), ".0f")


def _skipped(worker: Mapping[str, Any]) -> str:
    exchanges = worker["exchanges"]
    return figure(sum(exchanges["skipped"].values()) if exchanges else None, "d")


def _megabytes(worker: Mapping[str, Any], way: str) -> str:
    value = worker["bytes"][way]
    return figure(None if value is None else value / 1e6, ".1f")


def figure(value: float | None, form: str) -> str:
    """The value in its form, a dash if there is none."""
    return ABSENT if value is None else format(value, form)


def _metric(name: str, value: float | None) -> str:
    if value is not None and "accuracy" in name and 0 <= value <= 1:
        return f"{100 * value:.1f} %"
    return figure(value, ".3f" if value and 0.01 <= abs(value) < 1000 else ".3g")


def tasks(entries: Iterable[Any]) -> RenderableType:
    """The tasks there are: whether they are ready, what they are, options and their defaults."""
    return Group(*(line for entry in entries for line in _task(entry)))


def _task(entry: Any) -> Iterator[RenderableType]:
    ready = "green" if entry.status == "ready" else "yellow"
    options = ", ".join(f"{key} = {value!r}" for key, value in entry.options.items())
    yield Text.assemble((entry.name, "bold"), "  ", (entry.status, ready))
    yield Padding(Text(entry.description), (0, 0, 0, 2))
    yield Padding(Text(options, style="dim"), (0, 0, 1, 2))
