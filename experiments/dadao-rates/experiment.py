"""DADAO with the same rate on every edge, and with rates that minimise √(χ₁χ₂) on the same edges.

Needs the extra `rates` (cvxpy and clarabel). Graphs: families of decent, and "bridged", two cliques
joined by three edges between workers of their own.
"""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

from decent.learning.ridge import Ridge
from decent.reproduce import Progress, convex, style
from decent.topology import Topology, family
from decent.topology.optimize import optimize

Figures = dict[str, Any]


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    graphs, halves = settings["graphs"], settings["halves"]
    rows, parts = [], len(graphs) + len(halves)
    for k, name in enumerate(graphs):
        progress(name.replace("_", " "), k / parts)
        rows.append(_case(name, settings))
    barbells = []
    for k, half in enumerate(halves):
        progress(f"barbell of two {half}", (len(graphs) + k) / parts)
        barbells.append(_barbell(half))
    gains = [row["gain in messages"] for row in rows]
    agreements = [row["gain in messages"] / row["gain"] for row in rows]
    return {
        "barbell": {"gain": gains[graphs.index("barbell")]},
        "least": {"gain": min(gains), "agreement": min(agreements)},
        "most": {"gain": max(gains), "agreement": max(agreements)},
        "closed_form": max(abs(each["kept"] / each["closed"] - 1) for each in barbells),
        "table": rows,
        "barbells": barbells,
    }


def _case(name: str, settings: dict[str, Any]) -> Figures:
    graph = _graph(name, settings["workers"], settings["seed"])
    best = optimize(graph, total=1.0)
    even, better = (_messages(each, settings) for each in (best.uniform, best.optimised))
    return {
        "graph": name.replace("_", " "),
        "edges": len(graph.edges),
        "left out": len(best.dropped),
        "rate, uniform": convex.needed(best.uniform),
        "rate, best": convex.needed(best.optimised),
        "gain": best.gain,
        "messages, uniform": even,
        "messages, best": better,
        "gain in messages": even / better,
    }


def _messages(topology: Topology, settings: dict[str, Any]) -> float:
    target = settings["target"]
    track = convex.dadao(
        Ridge().objective(topology.n), topology, target=target / 10, limit=settings["limit"],
        replicas=settings["replicas"], seed=settings["seed"],
    )  # fmt: skip
    return track.spent("messages", target)


def _graph(name: str, n: int, seed: int) -> Topology:
    if name != "bridged":
        return family(name, n, seed=seed)
    half = n // 2
    cliques = [*combinations(range(half), 2), *combinations(range(half, n), 2)]
    bridges = [(i, i + half) for i in range(0, half, -(-half // 3))]
    return Topology.from_edges(n, [*cliques, *bridges], family="bridged")


def _barbell(half: int) -> Figures:
    """√(2χ₁χ₂) at one exchange per unit of time in all: uniform, best, best with every edge kept
    and the same in closed form (the paper's Lemma 8), best on the two stars around the bridge."""
    graph = family("barbell", 2 * half)
    best, kept = optimize(graph, total=1.0), optimize(graph, total=1.0, prune=False)
    return {
        "n": 2 * half,
        "uniform": convex.needed(best.uniform),
        "best": convex.needed(best.optimised),
        "kept": convex.needed(kept.optimised),
        "bridge": _share(best.optimised, (half - 1, half)),
        "closed": convex.needed(_closed_form(graph, half)),
        "stars": convex.needed(optimize(_stars(half), total=1.0).optimised),
    }


def _share(graph: Topology, edge: tuple[int, int]) -> float:
    """Of all exchanges, how many are over this edge."""
    return graph.rates[graph.edge_index[edge]] / sum(graph.rates)


def _closed_form(graph: Topology, n: int) -> Topology:
    """The rates of Lemma 8 for two cliques of n: c on the bridge, b from the bridge's ends to the
    others of their clique, a among those."""
    c = (4 - n + math.sqrt(2 * n * (n - 1))) / (2 * (8 + n))
    b = c / (n - 2) * (math.sqrt(2 * (n - 1) / n) - 2 / n)
    a = (1 - c - 2 * b * (n - 1)) / ((n - 1) * (n - 2))
    by_ends = {0: a, 1: b, 2: c}
    ends = {n - 1, n}
    return graph.with_rates([by_ends[len(ends & set(edge))] for edge in graph.edges])


def _stars(half: int) -> Topology:
    """Of a barbell, the bridge and the edges at its ends."""
    graph = family("barbell", 2 * half)
    edges = [edge for edge in graph.edges if {half - 1, half} & set(edge)]
    return Topology.from_edges(2 * half, edges)


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2)
    rows, places = figures["table"], range(len(figures["table"]))
    for k, (key, label) in enumerate((("uniform", "uniform"), ("best", "optimised"))):
        messages = [row[f"messages, {key}"] for row in rows]
        left.bar([x + (k - 0.5) * 0.36 for x in places], messages, 0.34, label=label)
    left.set_xticks(list(places), [row["graph"].replace(" ", "\n") for row in rows])
    style.finish(left, x="", y="messages to 1e-6")
    left.grid(visible=False, axis="x")
    sizes = [each["n"] for each in figures["barbells"]]
    for key, label in (("uniform", "uniform"), ("best", "optimised"), ("kept", "all edges kept")):
        style.line(right, sizes, [each[key] for each in figures["barbells"]], label)
    stars = [each["stars"] for each in figures["barbells"]]
    style.guide(right, sizes, stars, "two stars")
    style.finish(
        right, x="workers of a barbell", y="exchanges per unit of time", log="xy", ticks=sizes
    )
    marks = [20, 50, 100, 200]
    right.set_yticks(marks, [str(mark) for mark in marks])
    style.save(figure, folder / "rates.svg")
