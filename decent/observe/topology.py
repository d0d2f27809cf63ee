"""A topology for a reader, as text in a terminal, and for a program, as a dictionary; the same for
its optimal rates beside the same rate on every edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from decent.topology import Edge, Optimum, Topology, describe, exchanges_needed, sketch

MOST_RATES = 12


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


def comparison(optimum: Optimum) -> RenderableType:
    """The figures of equal and of optimal rates side by side, then the edges by their rates."""
    even, best = (_figures(each) for each in (optimum.uniform, optimum.optimised))
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("", style="dim", no_wrap=True)
    for heading in ("all edges alike", "optimised", "ratio"):
        table.add_column(heading, justify="right", no_wrap=True)
    for key, label in _LABELS.items():
        ratio = even[key] / best[key]
        table.add_row(label, f"{even[key]:.4g}", f"{best[key]:.4g}", f"{ratio:.3g}")
    dropped, edges = len(optimum.dropped), len(optimum.uniform.edges)
    table.add_row("edges left out", "0", f"{dropped} of {edges}")
    return Group(table, Padding(_by_rate(optimum.optimised), (1, 0, 0, 0)))


_LABELS = {
    "chi_1": "χ₁, slowest mode",
    "chi_2": "χ₂, largest resistance",
    "accelerated": "√(χ₁χ₂), accelerated",
    "exchanges_needed": "total rate for χ₁χ₂ = ½",
}


def _figures(topology: Topology) -> dict[str, float]:
    return {
        "chi_1": topology.chi_1,
        "chi_2": topology.chi_2,
        "accelerated": math.sqrt(topology.chi_1 * topology.chi_2),
        "exchanges_needed": exchanges_needed(topology),
    }


def _by_rate(topology: Topology) -> Table:
    """Rates to three digits, the highest first, and which edges have them."""
    groups: dict[str, list[str]] = {}
    for (i, j), each in zip(topology.edges, topology.rates, strict=True):
        groups.setdefault(f"{each:.3g}", []).append(f"{topology.name(i)}–{topology.name(j)}")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("rate", justify="right", no_wrap=True)
    table.add_column("edges")
    for rate in sorted(groups, key=float, reverse=True)[:MOST_RATES]:
        alike = groups[rate]
        more = f" and {len(alike) - 6} more" if len(alike) > 6 else ""
        table.add_row(rate, ", ".join(alike[:6]) + more)
    if len(groups) > MOST_RATES:
        table.add_row("…", f"{len(groups) - MOST_RATES} lower rates", style="dim")
    return table


def comparison_as_dict(optimum: Optimum) -> Mapping[str, Any]:
    """The same figures, and the optimised topology with all its edges."""
    return {
        "uniform": _figures(optimum.uniform),
        "optimised": _figures(optimum.optimised),
        "gain": optimum.gain,
        "total": math.fsum(optimum.optimised.rates),
        "dropped": [list(edge) for edge in optimum.dropped],
        "topology": as_dict(optimum.optimised),
    }
