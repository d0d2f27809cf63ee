"""Connected graphs for hypothesis: a random tree plus some edges, rates within three decades."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from decent.topology import Link, Topology

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
XML_TEXT = st.text(st.sampled_from("abcéλ<&\"' -:/"), max_size=8).map(str.strip)
RATES = st.floats(0.05, 50.0)


@st.composite
def graphs(draw: st.DrawFn, largest: int = 10) -> Topology:
    n = draw(st.integers(1, largest))
    edges = {(draw(st.integers(0, j - 1)), j) for j in range(1, n)}
    if n > 1:
        pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
        extra = draw(st.lists(pair.filter(lambda e: e[0] != e[1]), max_size=n))
        edges |= {(min(e), max(e)) for e in extra}
    return Topology.from_edges(n, edges, [draw(RATES) for _ in edges])


@st.composite
def described(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> Topology:
    """A graph with some, all or none of what a file may say of it."""
    graph = draw(graphs(6))
    columns = st.lists(st.none() | text, min_size=graph.n, max_size=graph.n).filter(any)
    names = st.lists(text, min_size=graph.n, max_size=graph.n, unique=True)
    links = st.tuples(st.integers(0, 400), st.none() | st.integers(1, 10_000))
    fields: dict[str, Any] = {
        "names": draw(st.none() | names.map(tuple)),
        "addresses": draw(st.none() | columns.map(tuple)),
        "regions": draw(st.none() | columns.map(tuple)),
        "source": draw(text),
        "family": draw(text),
    }
    if graph.edges and draw(st.booleans()):
        size = len(graph.edges)
        figures = draw(st.lists(links, min_size=size, max_size=size))
        fields["links"] = tuple(Link(ms / 2000, mb and mb * 1e6) for ms, mb in figures)
    return Topology(graph.n, graph.edges, graph.rates, **fields)
