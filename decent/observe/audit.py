"""The outcome of an audit: a line of figures, a table of edges for a person, a dictionary for a
program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from decent.observe.summary import strict
from decent.worker.audit import Culprit, Edge, Report, Settled

MOST = 12
"""edges and findings that are shown, at most, where not all are asked for"""


def verdict(report: Report) -> str:
    """One line: whether it balances, and the figures."""
    word = "balances" if report.balanced else "does not balance"
    exchanges = sum(edge.exchanges for edge in report.edges)
    parts = [
        f"{word}: {_count(len(report.known), 'worker')}, {_count(report.steps, 'local step')}, "
        f"{_count(exchanges, 'exchange')} on {_count(len(report.edges), 'edge')}"
    ]
    if report.combinations:
        sums = " and ".join(f"Σ({each})" for each in report.combinations)
        parts.append(f"{sums} off by {report.off:.2g}, rounding explains {report.bound:.2g}")
    if report.settled:
        parts.append(f"{_count(len(report.settled), 'chunk')} settled by rule")
    if report.unclosed:
        names = ", ".join(map(str, report.unclosed))
        parts.append(f"left open by worker{'s' * (len(report.unclosed) != 1)} {names}")
    return "; ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def findings(report: Report, everything: bool = False) -> RenderableType:
    """What is wrong, what was settled by rule, and the edges, worst first."""
    most = None if everything else MOST
    parts: list[RenderableType] = [Text(_wrong(each), "red") for each in report.culprits[:most]]
    if len(report.culprits) > len(parts):
        parts.append(Text(f"… and {len(report.culprits) - len(parts):,} more", "dim"))
    parts += [Text(line, "yellow") for line in _by_rule(report.settled)]
    if report.edges:
        parts.append(Padding(_edges(report.edges, most), (1 if parts else 0, 0, 0, 0)))
    return Group(*parts)


def _wrong(culprit: Culprit) -> str:
    at = f"at {culprit.s:.6g} s, " if culprit.exchange is not None else ""
    return f"{culprit.what} ({at}off by {culprit.off:.3g}, rounding explains {culprit.bound:.2g})"


def _by_rule(settled: list[Settled]) -> Iterator[str]:
    """A line for each edge and reason."""
    about = Counter((each.exchange.edge, each.why) for each in settled)
    most = {key: max(s.moved for s in settled if (s.exchange.edge, s.why) == key) for key in about}
    for ((i, j), why), count in about.items():
        chunks = _count(count, "chunk")
        yield f"edge {i}–{j}: {chunks} at one end alone, up to {most[(i, j), why]:.3g}: {why}"


def _edges(edges: list[Edge], most: int | None) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False,
        header_style="dim",
    )  # fmt: skip
    headings = (
        "edge", "exchanges", "chunks", "at one\nend alone", "largest\ndifference",
        "ends\ndisagree by", "rounding\nexplains",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for edge in edges[:most]:
        numbers = (f"{each:.2g}" for each in (edge.most, edge.off, edge.bound))
        counts = (f"{each:,}" for each in (edge.exchanges, edge.chunks, edge.one_sided))
        style = "" if edge.off <= edge.bound else "red"
        table.add_row("–".join(map(str, edge.workers)), *counts, *numbers, style=style)
    if len(edges) > len(table.rows):
        table.add_row("…", f"{len(edges) - len(table.rows)} more", style="dim")
    return table


def audit_as_dict(report: Report) -> dict[str, Any]:
    """All of it, as strict JSON has it."""
    exchange = ("starter", "answerer", "epochs", "seq", "chunk")

    def named(each: dict[str, Any]) -> dict[str, Any]:
        key = each["exchange"]
        return each | {"exchange": key and dict(zip(exchange, key, strict=True))}

    known = asdict(report) | {"balanced": report.balanced, "unclosed": report.unclosed}
    known["culprits"] = [named(each) for each in known["culprits"]]
    known["settled"] = [named(each) for each in known["settled"]]
    found: dict[str, Any] = strict(known)
    return found
