"""Plain tables as TOML, which the standard library only reads, and single settings in them.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from decent.errors import ConfigError


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


def read(path: Path) -> dict[str, Any]:
    """The tables of a file. Raises ConfigError if it cannot be read, or is not TOML."""
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}", "a TOML file that can be read", "check the path"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}", "a TOML file") from None


def override(data: dict[str, Any], setting: str) -> None:
    """Put `KEY=VALUE` into nested tables: a dotted key, a value as in TOML or a bare word."""
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {setting}", "KEY=VALUE, such as steps=500 or task.alpha=0.3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = key.strip().split(".")
    table = data
    for part in path:
        inner = table.setdefault(part, {})
        if isinstance(inner, str):
            inner = table[part] = {"name": inner}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {setting}", f"{part} to be a table")
        table = inner
    table[last] = value
