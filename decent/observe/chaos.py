"""The verdict on a run under faults, for a person: the faults, what they did, and what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

Verdict = Mapping[str, Any]
WORDS = {
    "completed": "exchanges completed",
    "abandoned": "abandoned",
    "repeated": "chunks asked for again",
    "duplicates": "requests and replies that came twice",
    "damaged": "damaged payloads",
    "refused": "messages refused",
}


def verdict(found: Verdict) -> RenderableType:
    """All there is to show."""
    style = "bold green" if found["ok"] else "bold red"
    parts: list[RenderableType] = [
        Text(headline(found), style),
        Text(_effort(found), "dim"),
        Padding(_kinds(found["faults"]["kinds"]), (1, 0, 0, 0)),
        Padding(_facts(found), (1, 0, 0, 0)),
    ]
    if found["culprits"]:
        parts.append(Text("\n" + "\n".join(found["culprits"]), "red"))
    return Group(*parts)


def headline(found: Verdict) -> str:
    """One line: whether it adds up."""
    faults = found["faults"]["injected"]
    if found["ok"]:
        return f"{faults} faults: no hang, the books balance, the survivors are merged"
    return f"{faults} faults: {len(found['culprits'])} findings"


def _effort(found: Verdict) -> str:
    memory = ", payloads in shared memory" if found["shared_memory"] else ""
    return (
        f"{found['workers']} workers on {found['edges']} edges, {found['dynamics']}, codec "
        f"{found['codec']}{memory} · seed {found['seed']} · {found['wall_s']:.1f} s"
    )


def _kinds(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim")
    for heading in ("fault", "injected", "messages met"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    for kind, told in kinds.items():
        met = told["messages"]
        table.add_row(kind, str(told["injected"]), "–" if met is None else f"{met:,}")
    return table


def _facts(found: Verdict) -> Table:
    exchanges, audit, messages = found["exchanges"], found["audit"], found["messages"]
    rows = {words: f"{exchanges[key]:,.0f}" for key, words in WORDS.items()}
    rows["messages that crossed the proxy"] = f"{messages['passed']:,}"
    rows["killed"] = _names(found["killed"])
    if audit is not None:
        rows["chunks settled by rule"] = f"{audit['settled_by_rule']:,} of {audit['chunks']:,}"
        word = "balances" if audit["balanced"] else "does not balance"
        rows["audit"] = f"{word}: off by {audit['off']:.2g}, rounding explains {audit['bound']:.2g}"
    rows["merged among"] = _names(found["merged_among"])
    table = Table(box=None, show_header=False, pad_edge=False)
    for words, value in rows.items():
        table.add_row(Text(words, "dim"), value)
    return table


def _names(workers: Sequence[int]) -> str:
    return ", ".join(map(str, workers)) or "–"
