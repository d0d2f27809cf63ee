"""Objects of the user's own, named `package.module:attribute` or `path/to/file.py:attribute`.

Stands below every other package, as `errors` does.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from decent.errors import InputError


def is_reference(name: str) -> bool:
    """Whether `name` points at a user's object and is not a built-in name."""
    return ":" in name


def load(reference: str, error: type[InputError]) -> Any:
    """The object that `reference` names; raises `error` when it cannot be had."""
    module, _, attribute = reference.rpartition(":")
    try:
        return getattr(_module(module), attribute)
    except (ImportError, AttributeError, OSError) as cause:
        raise error(
            f"{reference!r} cannot be loaded ({cause})",
            "package.module:attribute or path/to/file.py:attribute",
        ) from cause


def _module(name: str) -> ModuleType:
    if not name.endswith(".py"):
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))  # as `python -m` would
        return importlib.import_module(name)
    path = Path(name).resolve()
    unique = f"decent_plugin_{path.stem}_{abs(hash(str(path))):x}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, path)
    if spec is None or spec.loader is None or not path.exists():
        raise ImportError(f"no such file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    spec.loader.exec_module(module)
    return module
