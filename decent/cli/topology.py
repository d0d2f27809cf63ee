"""`decent topology show`: a graph, its rates and what they amount to; `optimize`: better rates."""

from __future__ import annotations

import json
from contextlib import nullcontext
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from decent.topology import Topology


@click.group(short_help="Look at topologies, find better rates.")
def topology() -> None:
    """Look at topologies: who may talk to whom, and how often. Find the best rates."""


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

    from decent.observe import as_dict, busy, picture
    from decent.topology.graph import LARGEST_DENSE

    found = find(which, workers, rate)
    large = found.n > LARGEST_DENSE
    with busy(Console(stderr=True), f"χ₁ and χ₂ of {found.n} workers") if large else nullcontext():
        shown = as_dict(found) if as_json else picture(found)
    if as_json:
        click.echo(json.dumps(shown, indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(shown)


@topology.command(short_help="Find the rates that mix fastest.")
@click.argument("which", metavar="NAME | FILE")
@click.option("-n", "workers", type=int, metavar="WORKERS", help="Size of a family's graph.  [8]")
@click.option(
    "--total", type=float, metavar="RATE", help="Exchanges per step, in all.  [as many as it has]"
)
@click.option("--keep-edges", is_flag=True, help="Give every edge a rate; try no fewer.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File for the topology (.toml, .graphml, .json); it must not exist.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def optimize(
    which: str,
    workers: int | None,
    total: float | None,
    keep_edges: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """Find the rates of a topology's edges that mix fastest for the same number of exchanges, and
    the edges that are best left out.

    \b
      decent topology optimize barbell -n 10
      decent topology optimize wan8 -o wan8-fast.toml
    """
    from rich.console import Console

    from decent.observe.topology import comparison, comparison_as_dict
    from decent.topology import optimize, save

    _check_out(out)
    say = partial(click.echo, err=True)
    best = optimize(find(which, workers, None), total, prune=not keep_edges, progress=say)
    if out is not None:
        save(best.optimised, out)
    if as_json:
        click.echo(json.dumps(comparison_as_dict(best), indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(comparison(best))


def _check_out(out: Path | None) -> None:
    """Before minutes go into what cannot be written."""
    from decent.errors import ConfigError
    from decent.topology.files import check_suffix

    if out is None:
        return
    check_suffix(out)
    if out.exists():
        raise ConfigError(f"-o {out}: it exists", "a new file", "remove it, or give another -o")


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
