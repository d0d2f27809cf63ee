"""The table of what was measured: rows of plain values as Markdown, between two markers of a page.

    <!-- measured -->
    | graph | slope |
    …
    <!-- /measured -->

A row is a dictionary; all have the same keys, which head the columns. Numbers are shown to three
digits, None as a dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from decent.errors import ConfigError

Row = dict[str, Any]
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
ABSENT = "–"


def cell(value: Any) -> str:
    """A value as it stands in the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _figure(value)
    return ABSENT if value is None else str(value)


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return ABSENT if math.isnan(value) else "∞"
    if 100 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def numeric(rows: Sequence[Row], column: str) -> bool:
    """Whether all that stands in the column are numbers."""
    return all(isinstance(row.get(column), (int, float, type(None))) for row in rows)


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table; columns of numbers are aligned to the right."""
    if not rows:
        return ""
    columns = list(rows[0])
    lines = [columns, ["--:" if numeric(rows, column) else "---" for column in columns]]
    lines += [[cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def put(page: str, rows: Sequence[Row], path: Path) -> str:
    """The text of `page` (the file at `path`) with the rows between its markers."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.S)
    if len(pattern.findall(page)) != 1:
        raise ConfigError(
            f"{path} has no place for the table", f"{BEGIN} and {END} once", "add these two lines"
        )
    table = f"{BEGIN}\n\n{markdown(rows)}\n\n{END}"
    return pattern.sub(lambda _: table, page)
