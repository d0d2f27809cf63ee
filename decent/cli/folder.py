"""The folder of a new run: never one that holds anything, and gone again if the input was refused.

`DIR` is what the user gave; without it the folder is runs/<name>-<date>-<time>, with a number
behind it if two runs start in one second.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from decent.errors import ConfigError, InputError


@dataclass
class RunFolder:
    """Where it is, and whether it holds work that must not be lost."""

    path: Path
    keep: bool = False


@contextmanager
def new_folder(given: Path | None, name: str) -> Iterator[RunFolder]:
    """Makes the folder; if an InputError is raised before there is anything to keep, removes it
    and the parents made with it."""
    wanted = given or _unused(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
    made = [path for path in (wanted, *wanted.parents) if not path.exists()]
    _make(wanted)
    folder = RunFolder(wanted)
    try:
        yield folder
    except InputError:
        if not folder.keep:
            _remove(wanted, made)
        raise


def _unused(path: Path) -> Path:
    numbered = (path.with_name(f"{path.name}-{k}") for k in count(2))
    return path if not path.exists() else next(each for each in numbered if not each.exists())


def check_unused(path: Path) -> None:
    """Refuse what exists, unless it is an empty folder."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"-o {path}: it is a file", "a folder", "give another -o")
    if path.exists() and any(path.iterdir()):
        raise ConfigError(
            f"-o {path}: the folder is not empty", "a new or an empty one", "give another -o"
        )


def _make(path: Path) -> None:
    try:
        check_unused(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"-o {path}: {error.strerror}", "a folder that can be made", "give another -o"
        ) from None


def _remove(path: Path, made: list[Path]) -> None:
    for each in path.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    with suppress(OSError):  # someone else's files have come to stand beside ours
        for folder in made:
            folder.rmdir()
