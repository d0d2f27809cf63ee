"""`decent topology show`: a graph, its rates and what they amount to."""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from decent.topology import Topology


@click.group(short_help="Look at topologies.")
def topology() -> None:
    """Look at topologies: who may talk to whom, and how often."""


@topology.command()
@click.argument("which", metavar="NAME | FILE")
@click.option("-n", "workers", type=int, metavar="WORKERS", help="Size of a family's graph.  [8]")
@click.option(
    "--rate", type=float, metavar="R", help="Models a worker sends per step.  [the rates it has]"
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(which: str, workers: int | None, rate: float | None, as_json: bool) -> None:
    """Show a family of graphs, a topology that comes with decent, or a file.

    \b
      decent topology show ring -n 12
      decent topology show wan8 --rate 0.04
    """
    from rich.console import Console

    from decent.observe import as_dict, picture

    found = find(which, workers, rate)
    if as_json:
        click.echo(json.dumps(as_dict(found), indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(picture(found))


def find(which: str, workers: int | None, rate: float | None) -> Topology:
    """The topology that a configuration with these values has."""
    from decent.config import from_dict
    from decent.topology import families

    _check_known(which)
    key = "name" if which in families() else "file"
    table: dict[str, Any] = {key: which, "rate": "own" if rate is None else rate}
    return from_dict({"topology": table, "workers": workers}).make_topology()


def _check_known(which: str) -> None:
    from decent import share
    from decent.errors import TopologyError
    from decent.topology import families

    shipped = sorted(path.stem for path in share.folder("topologies").glob("*.toml"))
    known = [*families(), *shipped]
    if which in known or Path(which).suffix:
        return
    near = get_close_matches(which, known, 1)
    raise TopologyError(
        f"no topology {which!r}",
        f"a family ({', '.join(families())}), one that comes with decent ({', '.join(shipped)}), "
        "or a file (.toml, .graphml, .json)",
        f"did you mean {near[0]}?" if near else "give one of these",
    )
