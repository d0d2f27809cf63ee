"""`decent reproduce`: a paper's claim, measured again and compared with what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from decent.reproduce import Outcome, Progress


@click.command(short_help="Measure a paper's claim again.")
@click.argument("name", required=False, metavar="NAME")
@click.option("--list", "listing", is_flag=True, help="List the experiments and their claims.")
@click.option("--fast", is_flag=True, help="A smaller run, of a minute at most.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where figures.json and the plots go.  [the experiment's own results/; with --fast "
    "runs/reproduce-NAME-fast]",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.pass_context
def reproduce(
    ctx: click.Context, name: str | None, listing: bool, fast: bool, out: Path | None, as_json: bool
) -> None:
    """Carry out an experiment: measure, plot, and compare with what was expected. The exit code is
    1 if something came out otherwise.

    \b
      decent reproduce --list
      decent reproduce dadao-star --fast
    """
    if listing:
        _list(as_json)
        return
    if name is None:
        raise click.UsageError("give the name of an experiment; --list shows them")
    from rich.console import Console

    from decent import reproduce as room

    experiment = room.find(name)
    with _bar(Console(stderr=True), experiment.name) as progress:
        outcome = room.reproduce(experiment, fast=fast, out=out, progress=progress)
    if as_json:
        click.echo(json.dumps(_as_dict(outcome), indent=2, default=float))
    else:
        _print(Console(highlight=False), outcome)
    ctx.exit(0 if outcome.ok else 1)


def _list(as_json: bool) -> None:
    from decent.reproduce import experiments

    found = [(each.name, each.describe()) for each in experiments()]
    if as_json:
        entries = [{"name": name, "title": it.title, "claim": it.claim} for name, it in found]
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    for name, it in found:
        click.echo(f"{name}\n    {it.claim}")


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    import msgspec

    described = outcome.experiment.describe()
    return {
        "name": outcome.experiment.name, "title": described.title, "claim": described.claim,
        "fast": outcome.fast, "ok": outcome.ok, "folder": str(outcome.folder),
        "wall_s": outcome.wall_s, "figures": outcome.figures,
        "checks": msgspec.to_builtins(outcome.verdicts),
    }  # fmt: skip


def _print(console: Console, outcome: Outcome) -> None:
    from rich.markup import escape

    described = outcome.experiment.describe()
    console.print(f"[bold]{escape(described.title)}[/]\n{escape(described.claim)}\n")
    if rows := outcome.figures.get("table"):
        console.print(_table(rows), "")
    for each in outcome.verdicts:
        mark = "[green]ok    [/]" if each.ok else "[red]MISSED[/]"
        value = "none" if each.value is None else f"{each.value:.4g}"
        console.print(
            f"{mark}  {escape(each.says)}: {value}, expected {escape(each.expected)}"
            f"  [dim]{escape(each.figure)}[/]",
            soft_wrap=True,
        )
    console.print(f"\n{outcome.wall_s:.0f} s, written to {outcome.folder}", soft_wrap=True)


def _table(rows: list[dict[str, Any]]) -> Any:
    from rich import box
    from rich.table import Table

    from decent.reproduce.tables import cell, numeric

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in rows[0]:
        table.add_column(
            column, justify="right" if numeric(rows, column) else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in rows[0]))
    return table


@contextmanager
def _bar(console: Console, name: str) -> Iterator[Progress]:
    """A bar in a terminal, wiped at the end; elsewhere a line for each new thing being done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn(name), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda doing, share: bar.update(task, description=doing, completed=share)


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console, self._last = console, ""

    def __call__(self, doing: str, share: float) -> None:
        if doing != self._last:
            self._console.print(f"{share:4.0%}  {doing}", soft_wrap=True, highlight=False)
        self._last = doing
