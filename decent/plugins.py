"""Things chosen by name: ours, or a user's own as `package.module:attribute` or
`path/to/file.py:attribute`. Schedules, dynamics, merges and tasks are all found here.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from decent.errors import InputError

FORMS = "package.module:attribute or path/to/file.py:attribute"


def is_reference(name: str) -> bool:
    """Whether `name` points at a user's object and is not a built-in name."""
    return ":" in name


def build(
    what: str,
    name: str,
    known: Mapping[str, Any],
    options: dict[str, Any],
    error: type[InputError],
    ready: Callable[[Any], bool],
) -> Any:
    """The `what` called `name`, out of `known` (objects, or references to them) or a user's own.

    A class or function is called with `options`; what is `ready` is taken as it is, and takes none.
    Raises `error` for an unknown name, an option it does not have, or one of another type.
    """
    if name not in known and not is_reference(name):
        near = get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else ""
        raise error(f"{what} {name!r}", f"one of {', '.join(known)}, or {FORMS}", hint)
    found = known.get(name, name)
    if isinstance(found, str):
        found = load(found, error, what)
    if isinstance(found, type) or not ready(found):
        return _made(what, name, found, options, error)
    if options:
        given = ", ".join(map(repr, options))
        raise error(f"{what} {name!r} with {given}", "no options: it is made already")
    return found


def load(reference: str, error: type[InputError], what: str = "") -> Any:
    """The object that `reference` names; raises `error` when it cannot be had."""
    module, _, attribute = reference.rpartition(":")
    try:
        return getattr(_module(module), attribute)
    except Exception as cause:
        raise error(
            f"{what} {reference!r} cannot be loaded ({type(cause).__name__}: {cause})".strip(),
            FORMS,
        ) from cause


def _made(
    what: str, name: str, maker: Any, options: dict[str, Any], error: type[InputError]
) -> Any:
    """`maker(**options)`, once every option is one of its own and of its default's type."""
    if not callable(maker):
        raise error(f"{what} {name!r} is {maker!r}", f"a {what}, or a class or function making one")
    parameters = inspect.signature(maker).parameters
    free = any(known.kind is known.VAR_KEYWORD for known in parameters.values())
    for key, value in options.items():
        if key not in parameters and not free:
            listed = ", ".join(parameters) or "no options"
            raise error(f"option {key!r} of {what} {name!r}", listed)
        if key in parameters and not _fits(value, parameters[key].default):
            kind = type(parameters[key].default).__name__
            raise error(f"option {key} = {value!r} of {what} {name!r}", f"a value of type {kind}")
    try:
        inspect.signature(maker).bind(**options)
    except TypeError as cause:
        raise error(f"{what} {name!r}: {cause}", remedy="give it as an option") from cause
    return maker(**options)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return not isinstance(default, (bool, int, str)) or type(value) is type(default)


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        if str(Path.cwd()) not in sys.path and "" not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as `python -m` would
        return importlib.import_module(name)
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    unique = f"decent_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module
