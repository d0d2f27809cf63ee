"""Topologies as networkx graphs, and as GraphML and node-link JSON through networkx.

Edge attributes: `rate` (exchanges per unit of time, 1 if absent), `latency_s` (one way, seconds),
`bandwidth_bps`. Node attributes: `name`, `address`, `region`, `key`. Graph attributes: `family`,
`source`. Node labels may be of any kind: workers are numbered in the order of the nodes, and labels
other than these numbers become the workers' names. networkx is imported when a function needs it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from decent.errors import TopologyError
from decent.topology.graph import Link, Topology

if TYPE_CHECKING:
    import networkx

Attributes = Mapping[str, Any]


def to_networkx(topology: Topology) -> networkx.Graph:
    """The topology as a graph over 0 … n − 1, with the attributes above where they are known."""
    import networkx

    graph = networkx.Graph(family=topology.family, source=topology.source)
    for i in range(topology.n):
        each = {
            "name": topology.names, "address": topology.addresses, "region": topology.regions,
            "key": topology.keys,
        }  # fmt: skip
        graph.add_node(i, **_known({key: all_ and all_[i] for key, all_ in each.items()}))
    links = topology.links or [None] * len(topology.edges)
    for (i, j), rate, link in zip(topology.edges, topology.rates, links, strict=True):
        figures = {"latency_s": link.latency_s, "bandwidth_bps": link.bandwidth_bps} if link else {}
        graph.add_edge(i, j, rate=rate, **_known(figures))
    return graph


def _known(attributes: Attributes) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if value is not None}


def from_networkx(graph: networkx.Graph) -> Topology:
    """The topology of an undirected graph, from the attributes above; others are left aside."""
    if graph.is_directed():
        raise TopologyError(
            "a directed graph", "an undirected one", "convert it first: graph.to_undirected()"
        )
    number = {label: i for i, label in enumerate(graph)}
    nodes = [graph.nodes[label] for label in graph]
    edges = list(graph.edges(data=True))
    return Topology.from_edges(
        len(graph),
        [(number[a], number[b]) for a, b, _ in edges],
        [_number(a, b, found, "rate", 1.0) for a, b, found in edges],
        links=_links(edges),
        family=str(graph.graph.get("family", "custom")),
        names=_names(list(graph), nodes),
        addresses=_texts(nodes, "address"),
        regions=_texts(nodes, "region"),
        keys=_texts(nodes, "key"),
        source=str(graph.graph.get("source", "")),
    )


def _names(labels: list[Any], nodes: list[Attributes]) -> tuple[str, ...] | None:
    numbers = [str(label) for label in labels] == [str(i) for i in range(len(labels))]
    if numbers and not any("name" in node for node in nodes):
        return None
    return tuple(str(node.get("name", label)) for label, node in zip(labels, nodes, strict=True))


def _texts(nodes: list[Attributes], key: str) -> tuple[str | None, ...] | None:
    texts = tuple(str(node[key]) if key in node else None for node in nodes)
    return texts if any(text is not None for text in texts) else None


def _links(edges: list[tuple[Any, Any, Attributes]]) -> list[Link] | None:
    if not any("latency_s" in found or "bandwidth_bps" in found for _, _, found in edges):
        return None
    return [
        Link(
            _number(a, b, found, "latency_s", None),
            _number(a, b, found, "bandwidth_bps", None) if "bandwidth_bps" in found else None,
        )
        for a, b, found in edges
    ]


def _number(a: Any, b: Any, found: Attributes, key: str, default: float | None) -> float:
    value = found.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        given = f"no {key}" if value is None else f"{key} = {value!r}"
        raise TopologyError(
            f"edge {a}–{b} has {given}", "a number", f"give {key} on every edge, or on none"
        )
    return float(value)


def to_graphml(topology: Topology) -> bytes:
    import networkx

    stream = io.BytesIO()
    networkx.write_graphml_xml(to_networkx(topology), stream)
    return stream.getvalue()


def from_graphml(data: bytes) -> Topology:
    import networkx

    try:
        graph = networkx.read_graphml(io.BytesIO(data))
    except Exception as error:
        raise _unreadable("GraphML", error) from error
    return from_networkx(graph)


def to_json(topology: Topology) -> bytes:
    import networkx

    data = networkx.node_link_data(to_networkx(topology), edges="edges")
    return (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()


def from_json(data: bytes) -> Topology:
    """Node-link JSON with its edges under `edges`, or `links` as networkx wrote before 3.6."""
    import networkx

    try:
        parsed = json.loads(data)
        graph = networkx.node_link_graph(parsed, edges="links" if "links" in parsed else "edges")
    except Exception as error:
        raise _unreadable("node-link JSON", error) from error
    return from_networkx(graph)


def _unreadable(form: str, error: Exception) -> TopologyError:
    return TopologyError(
        f"not readable as {form} ({type(error).__name__}: {error})",
        f"{form} as networkx writes it",
        "write the file with networkx, or use the TOML format",
    )
