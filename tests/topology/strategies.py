"""Connected graphs with what a file may say of them, for hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from decent.keys import Z85
from decent.testing import graphs
from decent.topology import Link, Topology

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
XML_TEXT = st.text(st.sampled_from("abcéλ<&\"' -:/"), max_size=8).map(str.strip)
KEYS = st.text(Z85[:82], min_size=40, max_size=40)


@st.composite
def described(draw: st.DrawFn, text: st.SearchStrategy[str] = TEXT) -> Topology:
    """A graph with some, all or none of what a file may say of it."""
    graph = draw(graphs(6))
    columns = st.lists(st.none() | text, min_size=graph.n, max_size=graph.n).filter(any)
    names = st.lists(text, min_size=graph.n, max_size=graph.n, unique=True)
    keys = st.lists(KEYS, min_size=graph.n, max_size=graph.n, unique=True)
    links = st.tuples(st.integers(0, 400), st.none() | st.integers(1, 10_000))
    fields: dict[str, Any] = {
        "names": draw(st.none() | names.map(tuple)),
        "addresses": draw(st.none() | columns.map(tuple)),
        "regions": draw(st.none() | columns.map(tuple)),
        "keys": draw(st.none() | keys.map(tuple)),
        "source": draw(text),
        "family": draw(text),
    }
    if graph.edges and draw(st.booleans()):
        size = len(graph.edges)
        figures = draw(st.lists(links, min_size=size, max_size=size))
        fields["links"] = tuple(Link(ms / 2000, mb and mb * 1e6) for ms, mb in figures)
    return Topology(graph.n, graph.edges, graph.rates, **fields)
