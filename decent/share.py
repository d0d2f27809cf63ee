"""Finds the files that come with decent: `topologies/`, `launch/`, `experiments/`.

An installed wheel carries them in `decent/_share/`; in a source checkout they are the folders
beside the package. Stands below every other package, as `errors` does.
"""

from __future__ import annotations

from pathlib import Path

from decent.errors import InputError


def folder(name: str) -> Path:
    """The folder `name` that came with decent, wherever it was installed."""
    package = Path(__file__).resolve().parent
    found = [path for path in (package / "_share" / name, package.parent / name) if path.is_dir()]
    if not found:
        raise InputError(
            f"the folder {name}/, which comes with decent, is not installed",
            f"{package / '_share' / name}, or {name}/ beside the package in a source checkout",
            "install decent again, or work in a checkout",
        )
    return found[0]


def find(name: str, file: str) -> Path:
    """The file `file` of the folder `name`, by its path inside it."""
    home = folder(name)
    path = home / file
    if not path.is_file():
        there = sorted(each.name for each in home.glob(f"*{path.suffix}") if each.is_file())
        raise InputError(
            f"no {file!r} among the files in {home}",
            f"one of {', '.join(there)}",
            "give one of these, or the path of a file of your own",
        )
    return path
