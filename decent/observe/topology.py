"""A topology for a reader, as text in a terminal, and for a program, as a dictionary."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from decent.topology import Edge, Topology, describe, sketch


def picture(topology: Topology) -> RenderableType:
    """What is worth knowing of it, then who talks to whom."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in describe(topology):
        table.add_row(label, value)
    drawn = sketch(topology)
    text = Text(drawn, style="cyan", no_wrap=True, overflow="crop")
    return Group(table, Padding(text, (1, 0, 0, 0))) if drawn else table


def as_dict(topology: Topology) -> dict[str, Any]:
    """Figures, names and edges; rates in exchanges per local step."""
    return {
        "family": topology.family,
        "n": topology.n,
        "chi_1": topology.chi_1,
        "chi_2": topology.chi_2,
        "spectral_gap": topology.spectral_gap if topology.n > 1 else None,
        "models_per_step": topology.models_per_worker(),
        "workers": [topology.name(i) for i in range(topology.n)],
        "edges": [_edge(topology, k, edge) for k, edge in enumerate(topology.edges)],
        "source": topology.source,
    }


def _edge(topology: Topology, k: int, edge: Edge) -> dict[str, Any]:
    known: dict[str, Any] = {"between": list(edge), "rate": topology.rates[k]}
    if topology.links:
        link = topology.links[k]
        known["round_trip_ms"] = 2e3 * link.latency_s
        known["bandwidth_mbps"] = link.bandwidth_bps and link.bandwidth_bps / 1e6
    return known
