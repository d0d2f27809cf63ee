"""A topology in a terminal: what is worth knowing of it as rows of label and value, and a picture
of who talks to whom. Rates are exchanges per unit of time, χ₁ and χ₂ units of time (see
`spectrum`), latencies milliseconds there and back, bandwidths megabits per second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from decent.topology.graph import Topology

LARGEST_SKETCH = 32
SHADES = "░▒▓█"


def describe(topology: Topology) -> list[tuple[str, str]]:
    """Rows of label and value, those that are known."""
    degrees = [len(topology.neighbours(i)) for i in range(topology.n)]
    together = math.sqrt(topology.chi_1 * topology.chi_2)
    rows = [
        ("family", topology.family),
        ("workers", f"{topology.n}"),
        ("edges", f"{len(topology.edges)}"),
        ("peers of a worker", _span(degrees)),
        ("exchanges on an edge", f"{_span(topology.rates)} per unit of time"),
        ("models from a worker", f"{topology.models_per_worker():.4g} per unit of time"),
        ("spectral gap λ₂", f"{topology.spectral_gap:.4g}"),
        ("χ₁, slowest mode", f"{topology.chi_1:.4g}"),
        ("χ₂, largest resistance", f"{topology.chi_2:.4g}"),
        ("√(χ₁χ₂), accelerated", f"{together:.4g}"),
    ]
    if topology.links:
        bands = [link.bandwidth_bps / 1e6 for link in topology.links if link.bandwidth_bps]
        rows.append(("round trip", f"{_span([2e3 * x.latency_s for x in topology.links])} ms"))
        rows.append(("bandwidth", f"{_span(bands)} Mbit/s" if bands else "unlimited"))
    return rows + ([("source", topology.source)] if topology.source else [])


def _span(values: Sequence[float]) -> str:
    """The smallest and the largest of the values, or the one value that all have."""
    low, high = (f"{pick(values, default=0):.4g}" for pick in (min, max))
    return low if low == high else f"{low} to {high}"


def sketch(topology: Topology) -> str:
    """The matrix of rates, a shade for each edge, the darkest the fastest; empty if too large."""
    if topology.n > LARGEST_SKETCH:
        return ""
    width = max(len(topology.name(i)) for i in range(topology.n))
    lines = [f"{topology.name(i):>{width}}  {_cells(topology, i)}" for i in range(topology.n)]
    fastest = max(topology.rates, default=0.0)
    legend = f"{'':>{width}}  ██ {fastest:.4g} exchanges per unit of time"
    return "\n".join([*lines, "", legend] if topology.edges else lines)


def _cells(topology: Topology, i: int) -> str:
    fastest = max(topology.rates, default=0.0)
    peers = topology.neighbours(i)
    shades = {j: SHADES[math.ceil(4 * rate / fastest) - 1] for j, rate in peers.items() if rate > 0}
    return "".join("╲ " if i == j else shades.get(j, "·") * 2 for j in range(topology.n))
