"""Files: what is written reads back, in all three formats; what is wrong is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given

from decent import share
from decent.errors import InputError, TopologyError
from decent.topology import Link, Topology, family, from_networkx, load, save, to_networkx
from decent.topology.convert import from_graphml, from_json, to_graphml, to_json
from decent.topology.toml import from_toml, to_toml

from .strategies import XML_TEXT, described

SHIPPED = ["barbell16", "exponential16", "hypercube16", "ring16", "star16", "wan8"]
EDGE = '[[edge]]\nbetween = ["a", "b"]\n'
PAIR = '[[worker]]\nname = "a"\n[[worker]]\nname = "b"\n' + EDGE


def keyed(*keys: str | None) -> str:
    """Two workers with these keys."""
    lines = [f"[[worker]]\nname = '{n}'\n" + (f"key = '{k}'\n" if k else "")
             for n, k in zip("ab", keys, strict=True)]  # fmt: skip
    return "".join(lines)


def same(read: Topology, written: Topology) -> None:
    """Equal but for the rounding of latencies and bandwidths in their files' units."""
    for one, other in zip(read.links or (), written.links or (), strict=True):
        assert one.latency_s == pytest.approx(other.latency_s)
        assert one.bandwidth_bps == pytest.approx(other.bandwidth_bps)
    assert replace(read, links=None) == replace(written, links=None)


@given(described())
def test_toml_and_json_round_trips(topology: Topology) -> None:
    same(from_toml(to_toml(topology)), topology)
    same(from_json(to_json(topology)), topology)


@given(described(XML_TEXT))
def test_graphml_round_trips(topology: Topology) -> None:
    same(from_graphml(to_graphml(topology)), topology)


@pytest.mark.parametrize("suffix", [".toml", ".graphml", ".json"])
def test_save_and_load_a_shipped_file(tmp_path: Path, suffix: str) -> None:
    wan = load("wan8")
    save(wan, tmp_path / f"wan{suffix}")
    same(load(tmp_path / f"wan{suffix}"), wan)
    assert [path.name for path in tmp_path.iterdir()] == [f"wan{suffix}"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_say_where_they_come_from(name: str) -> None:
    topology = load(name)
    assert topology.source
    assert topology.models_per_worker() == pytest.approx(1.0)
    path = share.find("topologies", f"{name}.toml")
    assert path.read_text().startswith("# ")
    assert load(path) == load(str(path)) == topology


def test_shipped_is_all_there_is() -> None:
    assert sorted(path.stem for path in share.folder("topologies").glob("*.toml")) == SHIPPED


def test_wan_survives_the_loss_of_any_region() -> None:
    wan = load("wan8")
    assert nx.is_biconnected(to_networkx(wan))
    assert wan.links is not None
    assert wan.links[wan.edge_index[(3, 4)]] == Link(0.0075, 1e9)
    assert wan.regions is not None
    assert wan.regions[3] == "eu-gb"


def test_a_family_in_a_file_with_named_workers() -> None:
    text = b'family = "ring"\nrate = 0.5\n' + b"".join(
        f'[[worker]]\nname = "{name}"\naddress = "tcp://{name}:1"\n'.encode() for name in "abc"
    )
    topology = from_toml(text)
    assert (topology.family, topology.rates) == ("ring", (0.5, 0.5, 0.5))
    assert topology.addresses == ("tcp://a:1", "tcp://b:1", "tcp://c:1")
    drawn = from_toml(b'family = "erdos_renyi"\nworkers = 9\nseed = 3\noptions = { p = 0.5 }')
    assert drawn == family("erdos_renyi", 9, seed=3, p=0.5)


def test_rates_of_a_file_default_to_the_one_at_the_top_and_scale() -> None:
    edges = "[[edge]]\nbetween = [0, 1]\n[[edge]]\nbetween = [2, 1]\nrate = 3\n"
    assert from_toml(f"workers = 3\nrate = 2\n{edges}".encode()).rates == (2.0, 3.0)
    scaled = from_toml(f"workers = 3\nmodels_per_worker = 4\n{edges}".encode())
    assert scaled.rates == pytest.approx((1.5, 4.5))


REFUSED = [
    ("x = ", "not readable as TOML", "TOML", "line"),
    ("familly = 'ring'", "unknown field `familly`", "family, workers", "correct or remove"),
    (
        PAIR + "speed = 1",
        "edge[0]: Object contains unknown field `speed`",
        "round_trip_ms",
        "remove",
    ),
    (
        "[[edge]]\nrate = 1",
        "edge[0]: Object missing required field `between`",
        "between",
        "correct",
    ),
    ("workers = 'ten'", "workers = 'ten'", "`int | null`, got `str`", "workers"),
    ("edge = [1]", "edge[0] = 1", "`object`, got `int`", "between"),
    ("[worker]\nname = 'x'", "worker = {'name': 'x'}", "`array`", "name, address"),
    ("[[edge]]\nbetween = [0]", "edge[0].between = [0]", "`array` of length 2", "between"),
    ("options = { p = 'x' }", "options[...] = {'p': 'x'}", "got `str`", "options"),
    (PAIR + "rate = 'x'", "edge[0].rate = 'x'", "got `str`", "bandwidth_mbps"),
    ("family = 'ring'", "neither workers nor [[worker]]", "number of workers", "workers = 16"),
    ("family = 'ring'\nworkers = 3\n[[worker]]", "workers = 3, but 1", "same", "leave workers"),
    ("family = 'rong'\nworkers = 3", "family 'rong'", "ring", "choose"),
    ("workers = 3", "family 'custom'", "ring", "list the edges"),
    (
        "family = 'ring'\nworkers = 3\noptions = { n = 4 }",
        "options.n = 4",
        "own",
        "top of the file",
    ),
    (
        "workers = 2\noptions = { p = 1 }\nedge = []",
        "options = {'p': 1}",
        "list of edges",
        "remove",
    ),
    (PAIR.replace('"b"]', '"c"]'), "between = ['a', 'c']: no worker 'c'", "a, b", "[[worker]]"),
    ("workers = 2\n" + EDGE, "no worker 'a'", "0 to 1", "correct the edge"),
    (
        PAIR + "bandwidth_mbps = 9",
        "edge[0] between ['a', 'b'] has no round_trip_ms",
        "every",
        "add",
    ),
    (PAIR + "round_trip_ms = -1", "latency_s = -0.0005", "0 or more", "one-way"),
    (PAIR + "rate = nan", "rate nan of edge (0, 1)", "finite", "silent"),
    (PAIR + EDGE, "edge (0, 1) is given twice", "once", "add the two"),
    ("[[worker]]\nname = 'a'\n[[worker]]\n", "worker[1] has no name", "all workers or none", "add"),
    ("models_per_worker = 0.0\n" + PAIR, "models_per_worker = 0.0", "greater than 0", "schedule"),
    (keyed("A" * 40, None), "worker b has no key", "a key for all workers or none", "add its key"),
    (keyed("A" * 40, "A" * 40), "workers a and b have the same key", "of its own", "keygen"),
    (keyed("A" * 40, "A" * 39), "the key of worker b is none", "40 characters", "keygen"),
    (keyed("A" * 39 + "~", "A" * 40), "the key of worker a is none", "NAME.pub", "keygen"),
    (keyed("#" * 40, "A" * 40), "the key of worker a is none", "40 characters", "keygen"),
]


@pytest.mark.parametrize(("text", "given_", "expected", "remedy"), REFUSED)
def test_refuses(tmp_path: Path, text: str, given_: str, expected: str, remedy: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(
        text if "[[worker]]\nname = 'a'" not in text else text + "[[edge]]\nbetween=[0,1]"
    )
    with pytest.raises(TopologyError) as caught:
        load(path)
    assert caught.value.given.startswith(f"{path}: ")
    assert given_ in caught.value.given
    assert expected in caught.value.expected
    assert remedy in caught.value.remedy


def test_refuses_what_is_not_there_or_not_a_topology(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"'ring17.toml'.*ring16\.toml.*file of your own"):
        load("ring17")
    with pytest.raises(TopologyError, match=r"No such file.*can be read.*Check the path"):
        load(tmp_path / "none.toml")
    for act in (lambda: load("graph.yaml"), lambda: save(family("ring", 3), "graph.yaml")):
        with pytest.raises(
            TopologyError, match=r"type '.yaml'.*\.toml, \.graphml, \.json.*convert"
        ):
            act()
    with pytest.raises(InputError, match=r"folder recipes/.*_share.*Install"):
        share.folder("recipes")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.graphml", "<graphml", r"a\.graphml: not readable as GraphML \(ParseError"),
        ("a.json", "[]", r"a\.json: not readable as node-link JSON"),
        ("a.json", "{", r"a\.json: not readable as node-link JSON \(JSONDecodeError"),
    ],
)
def test_refuses_broken_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TopologyError, match=message):
        load(tmp_path / name)


def test_labels_of_any_kind_become_names_in_file_order(tmp_path: Path) -> None:
    graph = nx.Graph()
    graph.add_edge("zürich", "athens", rate=2.0, latency_s=0.02, colour="red")
    graph.add_edge("athens", "bern", latency_s=0.01, bandwidth_bps=1e9)
    topology = from_networkx(graph)
    assert topology.names == ("zürich", "athens", "bern")
    assert topology.edges == ((0, 1), (1, 2))
    assert topology.rates == (2.0, 1.0)
    assert topology.links == (Link(0.02), Link(0.01, 1e9))
    nx.write_graphml(graph, tmp_path / "a.graphml")
    (tmp_path / "a.json").write_text(json.dumps(nx.node_link_data(graph, edges="links")))
    assert load(tmp_path / "a.graphml") == load(tmp_path / "a.json") == topology
    assert from_networkx(nx.grid_2d_graph(2, 2)).names == ("(0, 0)", "(0, 1)", "(1, 0)", "(1, 1)")


def test_refuses_graphs_that_are_not_topologies() -> None:
    with pytest.raises(
        TopologyError, match=r"directed graph: expected an undirected.*to_undirected"
    ):
        from_networkx(nx.DiGraph([(0, 1)]))
    with pytest.raises(TopologyError, match=r"given twice"):
        from_networkx(nx.MultiGraph([(0, 1), (0, 1)]))
    fast = nx.Graph()
    fast.add_edge(0, 1, rate="fast")
    with pytest.raises(TopologyError, match=r"edge 0–1 has rate = 'fast': expected a number"):
        from_networkx(fast)
    partly = nx.path_graph(3)
    partly.edges[0, 1]["latency_s"] = 0.1
    with pytest.raises(
        TopologyError, match=r"edge 1–2 has no latency_s.*on every edge, or on none"
    ):
        from_networkx(partly)
