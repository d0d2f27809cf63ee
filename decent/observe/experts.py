"""How the data is divided among experts, and what is trained of them, in a terminal.

An entry says name, samples and share π of a cluster, and steps, loss and digest of what is trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

ABSENT = "–"
WIDTH = 24  # characters of the longest bar
Entry = Mapping[str, Any]


def clusters(entries: Sequence[Entry], held_out: int = 0) -> RenderableType:
    """A row and a bar for each cluster, and how balanced they are."""
    table = listing("expert", "samples", "π", "")
    most = max(entry["pi"] for entry in entries)
    for entry in entries:
        bar = "█" * max(1, round(WIDTH * entry["pi"] / most))
        table.add_row(entry["name"], f"{entry['samples']:,}", f"{entry['pi']:.4f}", bar)
    table.columns[-1].justify = "left"
    return Group(table, Text("\n" + balance([entry["pi"] for entry in entries], held_out)))


def balance(pi: Sequence[float], held_out: int) -> str:
    """In words, with exp H(π): as many clusters of one size would be as hard to tell apart."""
    even = math.exp(-sum(p * math.log(p) for p in pi if p > 0))
    text = f"largest {max(pi) * len(pi):.2f} × the mean, smallest {min(pi) * len(pi):.2f} ×; "
    text += f"as even as {even:.2f} of {len(pi)}"
    return text + (f"; {held_out:,} samples held out" if held_out else "")


def modules(entries: Sequence[Entry]) -> RenderableType:
    """A row for each module: whose it is, and how far its training came."""
    table = listing("module", "network", "steps", "loss", "seconds", "multiply-adds", "digest")
    for entry in entries:
        if entry["digest"] is None:
            table.add_row(entry["name"], "not trained", *[ABSENT] * 5, style="yellow")
            continue
        table.add_row(
            entry["name"], entry["network"], f"{entry['steps']:,}", _figure(entry["loss"], ".4f"),
            _figure(entry.get("seconds"), ".0f"), _figure(entry.get("multiply_adds"), ","),
            entry["digest"][:12],
        )  # fmt: skip
    return table


def _figure(value: float | None, form: str) -> str:
    return ABSENT if value is None else format(value, form)


def listing(*headings: str) -> Table:
    """An empty table: names to the left, figures to the right."""
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False,
        header_style="dim",
    )  # fmt: skip
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table
