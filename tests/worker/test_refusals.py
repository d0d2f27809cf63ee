"""Who can stop a worker by refusing to talk: only one that it dialled and has not met."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent.dynamics import Gossip
from decent.errors import PeerRefused
from decent.schedule import Never, Poisson
from decent.simulation.cluster import Fault
from decent.testing import Cluster, Limits, cluster
from decent.topology import family
from decent.worker import Packet, UniformClock, Worker
from decent.worker import messages as m

RING = family("ring", 4)
LIMITS = Limits(chunk=4, start_s=10.0)


def worker(me: int) -> tuple[Worker, list[dict[str, Any]]]:
    trace: list[dict[str, Any]] = []
    made = Worker(
        me, RING, Gossip(), Never(), np.zeros((1, 4)), clock=UniformClock(), limits=LIMITS,
        record=trace.append,
    )  # fmt: skip
    made.start(0.0)
    return made, trace


def refuse(by: int, to: int = -1) -> Packet:
    return Packet(m.Refuse(src=by, dst=to, epoch=0, reason="no"))


def greet(one: Worker, by: int) -> None:
    """`by` has greeted it."""
    hello = m.Hello(
        by, one.me, 1, RING.n, "", 4, LIMITS.chunk, "<f8", "exact", False, asked_s=0.0, to_epoch=0
    )
    one.receive(Packet(hello), 0.0)
    assert one.peers[by].greeted


def wait(one: Worker, until_s: float) -> None:
    """Time passes, and is not slept through."""
    for half in range(int(2 * until_s) + 1):
        one.poll(half / 2)


@pytest.mark.parametrize("to", [2, -1])
def test_one_that_we_dialled_and_have_not_met_can(to: int) -> None:
    two, trace = worker(2)
    two.receive(refuse(1, to), 1.0)
    assert isinstance(two.context.fatal, PeerRefused)
    assert str(two.context.fatal) == "worker 1 refuses: no"
    assert [event["why"] for event in trace if event["event"] == "refused"] == [
        "worker 1 refuses: no"
    ]


@pytest.mark.parametrize(
    ("by", "why"),
    [(3, "it dialled us"), (0, "no neighbour"), (2, "ourselves"), (-1, "nobody"), (99, "nobody")],
)
def test_nobody_else_can(by: int, why: str) -> None:
    two, trace = worker(2)
    two.receive(refuse(by, 2), 1.0)
    assert two.context.fatal is None, why
    assert two.context.stats.refused == 1
    assert len([event for event in trace if event["event"] == "refused"]) == 1


def test_nor_one_that_has_greeted_us() -> None:
    two, _ = worker(2)
    greet(two, by=1)
    two.receive(refuse(1, 2), 1.0)
    two.refused(1, "its port is another's by now", 2.0)
    assert two.context.fatal is None
    assert two.context.stats.refused == 2


def test_nor_one_that_we_have_given_up() -> None:
    two, _ = worker(2)
    wait(two, 11.0)
    assert two.peers[1].state == "dead"
    two.receive(refuse(1, 2), 12.0)
    assert two.context.fatal is None


def test_what_may_pass_is_fatal_when_it_has_not() -> None:
    """A handshake that is broken off: a wrong key, or a worker that has not started yet."""
    two, _ = worker(2)
    greet(two, by=3)
    two.refused(1, "it breaks off", 1.0, final=False)
    wait(two, 9.5)
    assert two.context.fatal is None
    wait(two, 11.0)
    assert isinstance(two.context.fatal, PeerRefused)
    assert str(two.context.fatal) == "it breaks off"


def test_what_may_pass_is_forgiven_when_it_has() -> None:
    two, _ = worker(2)
    greet(two, by=3)
    two.refused(1, "it breaks off", 1.0, final=False)
    greet(two, by=1)
    wait(two, 11.0)
    assert two.context.fatal is None


def test_a_run_goes_on_whoever_forges_refusals() -> None:
    """To every worker, in the name of every other, once all have met."""

    def forge(run: Cluster) -> None:
        for to in run.workers.values():
            for by in range(RING.n):
                to.receive(refuse(by, to.me), run.now_s)

    faults = [Fault(at_s, "forged refusals", forge) for at_s in (3.0, 7.0, 12.0)]
    initial = np.arange(16.0).reshape(4, 4)
    run = cluster(RING, Gossip(), Poisson(), initial=initial, faults=faults, seed=1)
    run.run(until_s=20.0)
    assert run.alive == [0, 1, 2, 3]
    np.testing.assert_allclose(run.total(), 4 * initial.mean(0)[None], rtol=1e-12)
    assert [each.context.stats.refused for each in run.workers.values()] == [12] * 4
    assert all(each.context.stats.completed > 3 for each in run.workers.values())
