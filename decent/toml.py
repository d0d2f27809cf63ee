"""Plain tables as TOML, which the standard library only reads, and single settings in them.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import math
import re
import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from decent.errors import ConfigError

Table = TypeVar("Table", bound=msgspec.Struct)


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


def convert(data: dict[str, Any], kind: type[Table]) -> Table:
    """Nested tables as a struct. Raises ConfigError with the field's path, and what it knows."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind) from None


def _explained(text: str, kind: type[msgspec.Struct]) -> ConfigError:
    """A validation error of msgspec in our words, with the field's path."""
    found = re.search(r" - at `\$\.?(.*)`$", text)
    path = re.sub(r"\[\.\.\.\]", "", found[1]) if found else ""
    cause = text[: found.start()] if found else text
    unknown = re.search(r"unknown field `(.*)`", cause)
    if not unknown:
        return ConfigError(f"{path or 'configuration'}: {cause[:1].lower()}{cause[1:]}")
    known = _fields_at(path, kind)
    near = get_close_matches(unknown[1], known, 1)
    return ConfigError(
        f"unknown key {'.'.join(filter(None, [path, unknown[1]]))}",
        ", ".join(known),
        f"did you mean {near[0]}?" if near else "remove it",
    )


def _fields_at(path: str, kind: Any) -> list[str]:
    for part in filter(None, path.split(".")):
        field = next((f for f in msgspec.structs.fields(kind) if f.name == part), None)
        default = None if field is None else field.default
        if not isinstance(default, msgspec.Struct):
            return []
        kind = type(default)
    return list(kind.__struct_fields__)
