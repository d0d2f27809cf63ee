"""Workers that encrypt: real communicators, real sockets, keys in files and keys of a run's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decent import keys
from decent.folder import read_json, worker_folder
from decent.keys import Keys
from decent.runtime.security import is_local
from decent.topology import Topology, family
from decent.transport.curve import new_keys
from runtime.nodes import QUICK, Node, ready, settle, train, until

RING = family("ring", 3).with_models_per_worker(8.0)
LARGE = replace(QUICK, chunk=8192)
"""Chunks that are larger than any header: the largest frames there are."""
Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """A worker that encrypts; whatever still runs at the end of the test is killed."""
    nodes: list[Node] = []

    def start(me: int, topology: Topology = RING, folder: str = "run", **more: Any) -> Node:
        vector = np.full(20_000, float(me), np.float32)
        more = {"encrypt": True, "shared_memory": False, "limits": LARGE} | more
        nodes.append(Node(me, topology, vector, tmp_path / folder, **more))
        return nodes[-1]

    yield start
    for node in nodes:
        node.discard()


def files(folder: Path, count: int) -> tuple[list[Keys], list[str]]:
    """Pairs of keys, and the files that they are in."""
    pairs = [new_keys() for _ in range(count)]
    return pairs, [str(keys.write(pair, str(folder / f"{i}"))[0]) for i, pair in enumerate(pairs)]


def listed(pairs: list[Keys], topology: Topology = RING) -> Topology:
    return replace(topology, keys=tuple(pair.public for pair in pairs))


def works(nodes: list[Node]) -> None:
    """They mix, keep the mean, and have refused nobody's key."""
    train(nodes, 100, step_s=0.01)
    settle(nodes)
    states = np.array([node.x for node in nodes])
    np.testing.assert_allclose(states.mean(), 1.0, rtol=1e-5)
    assert states.std(0).max() < 0.5
    stats = [node.close() for node in nodes]
    assert sum(each["completed"] for each in stats) > 10
    assert [each["refused_keys"] for each in stats] == [0, 0, 0]


def test_keys_of_a_runs_own_are_published_and_prove_who_is_who(
    start: Start, tmp_path: Path
) -> None:
    nodes = [start(me) for me in range(3)]
    ready(nodes)
    found = [read_json(worker_folder(tmp_path / "run", me) / "endpoint.json") for me in range(3)]
    assert all(keys.is_key(each["key"]) for each in found)
    assert len({each["key"] for each in found}) == 3
    works(nodes)


def test_keys_that_the_topology_lists_count_and_no_others(start: Start, tmp_path: Path) -> None:
    """A stranger with the run's name, topology and folder, but no key of its, gets nowhere."""
    pairs, places = files(tmp_path, 4)
    topology = listed(pairs[:3])
    nodes = [start(me, topology, key_file=places[me]) for me in range(3)]
    ready(nodes)
    address = nodes[0].address()
    known = replace(topology, addresses=(address, nodes[1].address(), None))
    stranger = start(2, known, folder="elsewhere", key_file=places[3])
    said = stranger.hear("error")
    assert said["error"] == "PeerRefused"
    assert f" refuses the key {pairs[3].public} of this worker" in said["text"]
    assert address in said["text"] or nodes[1].address() in said["text"]
    settle(nodes)
    assert sum(node.close()["refused_keys"] for node in nodes) >= 1
    noted = [event["why"] for node in nodes for event in node.events("refused key")]
    assert any(pairs[3].public in why for why in noted)
    left = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".key"]
    assert {"endpoint.json", "trace.jsonl"} <= {path.name for path in left}
    held = "".join(path.read_text() for path in left)
    assert pairs[0].public in held
    assert [pair for pair in pairs if pair.secret in held] == []


def test_ones_own_key_does_not_speak_for_another(start: Start, tmp_path: Path) -> None:
    """Worker 2 is started with worker 1's key: it is told so, and 0 and 1 are not disturbed."""
    pairs, places = files(tmp_path, 3)
    topology = listed(pairs)
    zero, one = (start(me, topology, key_file=places[me]) for me in range(2))
    wrong = start(2, topology, key_file=places[1])
    said = wrong.hear("error")
    assert said["error"] == "PeerRefused"
    assert "worker 2 has shown the key of worker 1: each worker needs its own" in said["text"]
    right = start(2, topology, key_file=places[2])
    ready([zero, one, right])
    settle([zero, one, right])


def test_another_key_than_the_peers_is_an_error_in_time(start: Start, tmp_path: Path) -> None:
    """Nobody says why a connection breaks off; when the peer is given up, it is an error."""
    pairs, places = files(tmp_path, 3)
    pair = family("ring", 2)
    zero = start(0, listed(pairs[:2], pair), key_file=places[0])
    wrong = replace(
        listed([pairs[2], pairs[1]], pair), addresses=(zero.address(), "tcp://127.0.0.1:*")
    )
    limits = replace(LARGE, start_s=2.0)
    said = start(1, wrong, folder="elsewhere", key_file=places[1], limits=limits).hear("error")
    assert said["error"] == "PeerRefused"
    assert f"worker 0 at {zero.address()} breaks off every handshake" in said["text"]


def test_one_who_does_not_encrypt_is_refused_in_words(start: Start) -> None:
    pair = family("ring", 2)
    zero = start(0, pair)
    open_ = replace(pair, addresses=(zero.address(), None))
    said = start(1, open_, folder="elsewhere", encrypt=False).hear("error")
    assert said["error"] == "PeerRefused"
    assert "encrypts, and this worker does not" in said["text"]
    until(lambda: zero.events("refused key"), "worker 0 has noted it")


def test_a_key_file_that_others_can_read_is_refused(start: Start, tmp_path: Path) -> None:
    pairs, places = files(tmp_path, 3)
    Path(places[0]).chmod(0o644)
    said = start(0, listed(pairs), key_file=places[0]).hear("error")
    assert said["error"] == "ConfigError"
    assert "others may use it (mode 644)" in said["text"]
    assert pairs[0].secret not in said["text"]


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:*", True),
        ("tcp://127.8.0.1:5555", True),
        ("tcp://localhost:5555", True),
        ("tcp://::1:*", True),
        ("tcp://[::1]:5555", True),
        ("tcp://[::ffff:127.0.0.1]:5555", True),
        ("ipc://*", True),
        ("tcp://10.0.0.1:5555", False),
        ("tcp://0.0.0.0:*", False),
        ("tcp://*:5555", False),
        ("tcp://[::]:5555", False),
        ("tcp://eth0:5555", False),
        ("tcp://localhost.example.org:5555", False),
        ("nonsense", False),
    ],
)
def test_what_leaves_the_machine(address: str, local: bool) -> None:
    assert is_local(address) == local
