"""Plain tables as TOML: the standard library only reads it.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec


def dumps(data: dict[str, Any]) -> str:
    """Values first, then one table after the other; tables inside tables are written inline."""
    plain = [f"{key} = {_value(v)}" for key, v in data.items() if not isinstance(v, dict)]
    tables = [
        f"\n[{key}]\n" + "\n".join(f"{k} = {_value(v)}" for k, v in table.items())
        for key, table in data.items()
        if isinstance(table, dict)
    ]
    return "\n".join([*plain, *tables]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{k} = {_value(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return msgspec.json.encode(value).decode()
