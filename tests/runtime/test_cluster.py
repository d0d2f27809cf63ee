"""Several real communicators over real sockets: what is conserved, who is refused, who dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from decent.dynamics import Acid, Dynamics, Gossip
from decent.runtime import link
from decent.schedule import Never, View, as_schedule
from decent.topology import Topology, family
from runtime.nodes import PATIENCE_S, QUICK, Node, ready, settle, train, until

Start = Callable[..., list[Node]]


def late(view: View) -> Iterator[tuple[float, int]]:
    """A schedule that comes to nothing here."""
    yield 1e9, next(iter(view.rates))


LATE = as_schedule(late)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Workers of one topology; whatever still runs at the end of the test is killed."""
    nodes: list[Node] = []

    def start(topology: Topology, vectors: Sequence[Any], **options: Any) -> list[Node]:
        first = len(nodes)
        for me in range(topology.n):
            own = {key: value(me) if callable(value) else value for key, value in options.items()}
            nodes.append(Node(me, topology, vectors[me], own.pop("folder", tmp_path), **own))
        return nodes[first:]

    yield start
    for node in nodes:
        node.discard()


def normal(n: int, values: int, dtype: str = "float32") -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(n, values)).astype(dtype)


def conserved(nodes: Sequence[Node]) -> np.ndarray[Any, Any]:
    """Σ x, and for A²CiD² Σ x + w/2 = Σ (x + x̃)/2, which the drift leaves alone; over n."""
    states = np.array([node.board.state for node in nodes], np.float64)
    return np.asarray(states[:, 0].mean(0) + states[:, 1:].sum(1).mean(0) / 2)


@pytest.mark.parametrize(
    ("dynamics", "dtype"),
    [
        (Gossip(), "float32"),
        (Acid(), "float32"),
        pytest.param(Acid(), "float64", marks=pytest.mark.slow),
    ],
)
def test_the_mean_is_conserved_to_rounding(
    start: Start, dynamics: Dynamics, dtype: str, record_property: Callable[[str, object], None]
) -> None:
    """After 1,000 exchanges over real sockets, without gradient steps."""
    topology = family("ring", 4).with_models_per_worker(8.0)
    vectors = normal(4, 1000, dtype)
    nodes = start(topology, vectors, dynamics=dynamics, limits=replace(QUICK, chunk=512))
    ready(nodes)
    before = conserved(nodes)
    spread = vectors.std(0).max()

    def exchanges() -> float:
        return sum(node.board.counters()["completed"] for node in nodes)

    end_s = time.monotonic() + PATIENCE_S
    while exchanges() < 1000 and time.monotonic() < end_s:
        train(nodes, 10, step_s=0.02)
    settle(nodes)
    after = conserved(nodes)
    stats = [node.close() for node in nodes]
    completed = sum(each["completed"] for each in stats)
    assert completed >= 1000
    assert sum(each["answered"] for each in stats) == pytest.approx(completed)
    assert sum(each["abandoned"] for each in stats) == 0
    mixed = sum(each["values_mixed"] for each in stats)
    assert mixed == 2 * 1000 * completed  # each value, at both ends, no more and no less

    eps, scale = np.finfo(dtype).eps, np.abs(vectors).max()
    drift = float(np.abs(after - before).max() / (eps * scale))
    record_property("drift_eps", drift)
    print(
        f"\n{dynamics.name} {dtype}: {completed} exchanges, drift {drift:.2f} eps·scale "
        f"({np.abs(after - before).max():.1e})"
    )
    assert drift < 20  # rounding alone is a random walk of some √1000 half units over 4 workers
    assert np.array([node.x for node in nodes]).std(0).max() < 0.01 * spread  # and it did mix


def test_the_merge_is_the_weighted_mean_at_everyone(start: Start) -> None:
    vectors, weights = normal(5, 700), [1.0, 2.0, 3.0, 4.0, 5.0]
    nodes = start(family("star", 5), vectors, schedule=LATE)
    ready(nodes)
    for node, weight in zip(nodes, weights, strict=True):
        node.ask_merge(weight=weight)
    for node in nodes:
        said = node.hear("merged")
        assert (said["merged"], said["among"], said["vector"]) == (0, [0, 1, 2, 3, 4], None)
    expected = np.average(vectors.astype(np.float64), axis=0, weights=weights)
    for node in nodes:
        assert np.array_equal(node.x, nodes[0].x)  # to the bit
        np.testing.assert_allclose(node.x, expected, rtol=1e-5, atol=1e-6)
    for node in nodes:  # and of any other vector afterwards
        node.ask_merge(np.full(3, node.me, np.float32), round=1)
    for node in nodes:
        mean = np.frombuffer(node.hear("merged")["vector"], np.float32)
        assert mean.tolist() == [2.0, 2.0, 2.0]
    assert [node.close()["refused"] for node in nodes] == [0] * 5


@pytest.mark.slow
def test_the_merge_is_over_those_who_live(start: Start) -> None:
    """One dies with its communicator before, one while the others wait in the merge."""
    vectors = normal(4, 700)
    limits = replace(QUICK, silent_s=1.0, dead_s=4.0)
    nodes = start(family("complete", 4), vectors, schedule=LATE, limits=limits)
    ready(nodes)
    nodes[1].process.kill()
    nodes[0].ask_merge()
    nodes[2].ask_merge()
    time.sleep(0.5)
    nodes[3].process.kill()
    for node in (nodes[0], nodes[2]):
        assert node.hear("merged")["among"] == [0, 2]
        np.testing.assert_allclose(node.x, (vectors[0] + vectors[2]) / 2, rtol=1e-5)
        node.close()
        assert any(fault.get("dead") == [1, 3] for fault in node.events("fault"))


def test_it_sleeps_when_there_is_nothing_to_do(start: Start) -> None:
    """No busy waiting: processor time, not wall time, is what is bounded."""
    nodes = start(family("ring", 3), normal(3, 100))
    ready(nodes)
    train(nodes, 5, step_s=0.01)
    time.sleep(0.5)
    before = [cpu_s(node.process.pid) for node in nodes]
    time.sleep(2.0)
    used = [cpu_s(node.process.pid) - b for node, b in zip(nodes, before, strict=True)]
    assert max(used) < 0.2, used


def test_a_schedule_that_never_contacts_anyone(start: Start) -> None:
    nodes = start(family("ring", 3), normal(3, 100), schedule=Never())
    ready(nodes)
    train(nodes, 5, step_s=0.01)
    settle(nodes)
    assert [node.close()["started"] for node in nodes] == [0, 0, 0]


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# who is refused


def addressed(topology: Topology, addresses: Sequence[str | None]) -> Topology:
    return replace(topology, addresses=tuple(addresses))


def test_another_run_is_refused_in_words(start: Start, tmp_path: Path) -> None:
    """Worker 1 of run B dials an address where a worker of run A listens."""
    pair = family("ring", 2)
    [a0, a1] = start(pair, normal(2, 10), run="run-A", folder=tmp_path / "a")
    ready([a0, a1])
    lost = addressed(pair, (a0.address(), None))
    b1 = Node(1, lost, normal(1, 10)[0], tmp_path / "b", run="run-B")
    try:
        said = b1.hear("error")
    finally:
        b1.discard()
    assert said["error"] == "PeerRefused"
    assert "'run-A'" in said["text"]
    assert "'run-B'" in said["text"]
    assert "check the address" in said["text"]
    assert isinstance(link.as_error(said["error"], said["text"]), Exception)
    until(lambda: a0.events("refused"), "the stranger is noted")
    assert "'run-B'" in a0.events("refused")[0]["why"]
    ready_again = a0.process.poll() is None and a1.process.poll() is None
    assert ready_again  # a stranger disturbs nobody
    assert a0.close()["refused"] >= 1


def test_the_wrong_worker_is_refused_in_words(start: Start, tmp_path: Path) -> None:
    """Worker 2 is told that worker 0 listens where worker 1 does."""
    topology = family("complete", 3)
    vectors = normal(3, 10)
    n0 = Node(0, topology, vectors[0], tmp_path)
    n1 = Node(1, topology, vectors[1], tmp_path)
    wrong = addressed(topology, (n1.address(), n1.address(), None))
    n2 = Node(2, wrong, vectors[2], tmp_path)
    try:
        said = n2.hear("error")
        assert said["error"] == "PeerRefused"
        assert said["text"] == "worker 0 was dialled, worker 1 answers: check the addresses"
        until(lambda: n2.process.poll() is not None, "its communicator ends")
        assert n0.process.poll() is None
        assert n1.process.poll() is None
        until(lambda: n1.events("refused"), "worker 1 notes it")
        assert "worker 2 has dialled worker 0, this is worker 1" in n1.events("refused")[0]["why"]
    finally:
        for node in (n0, n1, n2):
            node.discard()


def test_another_model_is_refused_in_words(start: Start) -> None:
    """One parameter more at worker 1."""
    vectors = [np.zeros(10, np.float32), np.zeros(11, np.float32)]
    nodes = start(family("ring", 2), vectors)
    said = nodes[1].hear("error")
    assert said["error"] == "PeerRefused"
    assert "parameters in the model" in said["text"]
    assert "11 at worker 1" in said["text"]
    assert "10 at worker 0" in said["text"]


def test_another_model_is_an_error_at_both_ends(start: Start) -> None:
    vectors = [np.zeros(10, np.float32), np.zeros(11, np.float32)]
    limits = replace(QUICK, start_s=3.0)
    for node in start(family("ring", 2), vectors, limits=limits):
        said = node.hear("error")
        assert said["error"] == "PeerRefused"
        assert "11 at worker 1, 10 at worker 0" in said["text"]


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"digest": lambda me: f"layout{me}"}, ["layout of the model", "layout0", "layout1"]),
        (
            {"limits": lambda me: replace(QUICK, chunk=64 << me)},
            ["values in a chunk", "64 at worker 0", "128 at worker 1"],
        ),
    ],
)
def test_another_layout_is_refused_in_words(
    start: Start, option: dict[str, Any], words: list[str]
) -> None:
    nodes = start(family("ring", 2), normal(2, 300), **option)
    said = nodes[1].hear("error")
    assert said["error"] == "PeerRefused"
    for word in words:
        assert word in said["text"]


def test_another_number_format_is_refused_in_words(start: Start) -> None:
    vectors = [np.zeros(10, np.float32), np.zeros(10, np.float64)]
    said = start(family("ring", 2), vectors)[1].hear("error")
    assert "number format: <f8 at worker 1, <f4 at worker 0" in said["text"]


def test_a_port_in_use_is_said_in_words(start: Start) -> None:
    [node, *_] = start(family("ring", 3), normal(3, 10))
    taken = node.address()
    again = Node(0, family("ring", 3), normal(1, 10)[0], node.folder, address=taken)
    try:
        said = again.hear("error")
    finally:
        again.discard()
    assert said["error"] == "ConfigError"
    assert taken in said["text"]
    assert "in use" in said["text"]


# who dies

DOOMED = """
import sys, time, pickle
sys.path[:0] = {path!r}
import numpy as np
from pathlib import Path
from decent.topology import family
from runtime.nodes import Node
node = Node(1, family("ring", 3), np.ones(10, np.float32), Path({folder!r}))
node.hear("ready")
print(node.process.pid, flush=True)
time.sleep(600)
"""


def test_killed_training_takes_its_communicator_along(start: Start, tmp_path: Path) -> None:
    """kill −9 of the training process: the communicator says good-bye, and neighbours know."""
    topology = family("ring", 3)
    code = DOOMED.format(path=[str(Path(__file__).parents[1])], folder=str(tmp_path))
    doomed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    nodes = [Node(me, topology, np.ones(10, np.float32), tmp_path) for me in (0, 2)]
    try:
        ready(nodes)
        assert doomed.stdout is not None
        communicator = int(doomed.stdout.readline())
        doomed.send_signal(signal.SIGKILL)
        for node in nodes:  # silence alone would take 300 s to be taken for death
            until(lambda node=node: node.events("fault"), "the neighbours know")
            [fault] = node.events("fault")
            assert (fault["what"], fault["peer"]) == ("peer dead", 1)
            assert fault["why"] == "its training process died"
        until(lambda: gone(communicator), "the communicator is gone")
        for node in nodes:
            node.ask_merge()
        for node in nodes:
            assert node.hear("merged")["among"] == [0, 2]
            node.close()
    finally:
        doomed.kill()
        doomed.wait()
        for node in nodes:
            node.discard()


def gone(pid: int) -> bool:
    """Whether it has ended; nobody may have collected it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_leaving_without_the_merge_is_said(start: Start) -> None:
    nodes = start(family("ring", 3), normal(3, 10))
    ready(nodes)
    nodes[1].close()
    for node in (nodes[0], nodes[2]):
        until(lambda node=node: node.events("fault"), "the neighbours know")
        assert node.events("fault")[0]["why"] == "it left before it was merged"
        node.ask_merge()
    for node in (nodes[0], nodes[2]):
        assert node.hear("merged")["among"] == [0, 2]
        node.close()


def test_leaving_while_the_others_are_waited_for_is_quick(start: Start) -> None:
    """Ctrl-C in the merge: it does not linger for a result that nobody here waits for."""
    nodes = start(family("ring", 3), normal(3, 10))
    ready(nodes)
    nodes[1].ask_merge()
    nodes[1].close()
    until(lambda: nodes[0].events("fault"), "the neighbours know")
    assert nodes[0].events("fault")[0]["why"] == "it left before it was merged"


def test_a_malformed_word_is_counted_and_harmless(start: Start) -> None:
    """Someone speaks for another worker, and nonsense."""
    from decent.transport.zeromq import ZeroMQ
    from decent.worker import frames as wired
    from decent.worker import messages as m

    nodes = start(family("ring", 3), normal(3, 10))
    ready(nodes)
    stranger = ZeroMQ("test/2/1", "tcp://127.0.0.1:*", 4096)
    stranger.dial(0, nodes[0].address())
    speaks_for_1 = wired.encode(m.Packet(m.Gone(src=1, dst=0, epoch=0, reason="lie")), "test")
    for frames in ([b"nonsense"], [msgpack.packb([1, "test"])], speaks_for_1, [b""] * 5):
        assert stranger.send(0, frames)
    until(lambda: len(nodes[0].events("refused")) >= 4, "all four are refused")
    stranger.close()
    assert not nodes[0].events("fault")
    settle(nodes)
