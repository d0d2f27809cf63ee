"""Topologies in files: TOML (see `toml`), GraphML and node-link JSON (see `convert`), told apart by
their suffix; and by name those that come with decent, in `topologies/`. Errors name the file.
Files are written whole or not at all.
"""

from __future__ import annotations

from pathlib import Path

from decent import share
from decent.errors import InputError, TopologyError
from decent.folder import write_atomic
from decent.topology.convert import from_graphml, from_json, to_graphml, to_json
from decent.topology.graph import Topology
from decent.topology.toml import from_toml, to_toml

_READ = {".toml": from_toml, ".graphml": from_graphml, ".json": from_json}
_WRITE = {".toml": to_toml, ".graphml": to_graphml, ".json": to_json}


def load(path_or_name: str | Path) -> Topology:
    """The topology in a file (.toml, .graphml, .json), or the one of this name that comes with
    decent: ``load("ring16")``."""
    path = _locate(path_or_name)
    check_suffix(path)
    try:
        return _READ[path.suffix](path.read_bytes())
    except OSError as error:
        raise TopologyError(
            f"{path}: {error.strerror}", "a file that can be read", "check the path"
        ) from error
    except InputError as error:
        raise TopologyError(f"{path}: {error.given}", error.expected, error.remedy) from error


def save(topology: Topology, path: str | Path) -> None:
    """Write the topology as .toml, .graphml or .json, by the path's suffix."""
    path = Path(path)
    check_suffix(path)
    try:
        write_atomic(path, _WRITE[path.suffix](topology))
    except OSError as error:
        raise TopologyError(
            f"{path}: {error.strerror}", "a file that can be written", "check the path"
        ) from error


def _locate(path_or_name: str | Path) -> Path:
    path = Path(path_or_name)
    if path.suffix or path.name != str(path_or_name):
        return path
    try:
        return share.find("topologies", f"{path}.toml")
    except InputError as error:
        raise TopologyError(f"topology {error.given}", error.expected, error.remedy) from error


def check_suffix(path: Path) -> None:
    """Refuse a file of a type that topologies are not written in."""
    if path.suffix not in _READ:
        raise TopologyError(
            f"{path}: a file of type {path.suffix or 'unknown'!r}",
            f"one of {', '.join(_READ)}",
            "rename or convert it",
        )
