"""Signs of life: they measure the way, wait behind no payload, and keep a slow edge alive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent.dynamics import Gossip
from decent.schedule import Never, Poisson
from decent.testing import Limits, Network, cluster, cut
from decent.topology import Link, family
from decent.worker import messages as m
from tests.worker.test_exchanges import acquainted, said, talk

LINE = family("line", 2)


def test_a_sign_of_life_is_answered_at_once_and_measures_the_way() -> None:
    a, b = acquainted()
    a.poll(1.0)
    (beat,) = said(a, m.Beat)
    b.receive(beat, 1.2)
    (answer,) = said(b, m.Beat)
    assert answer.message == m.Beat(1, 0, 0, asked_s=1.0, answer=False)
    a.receive(answer, 1.5)
    assert not said(a)  # an answer is not answered
    assert a.context.stats.round_trips_s == {"1": 0.5}
    assert a.peers[1].pulse.mean_s == 0.5


@pytest.mark.parametrize("asked_s", [-100.0, 2.0])
def test_what_cannot_be_an_answer_to_ours_is_no_measurement(asked_s: float) -> None:
    a, _ = acquainted()
    a.receive(m.Packet(m.Beat(1, 0, 0, asked_s=asked_s)), 1.0)
    assert a.context.stats.round_trips_s == {}


def test_it_does_not_touch_the_measure_of_chunks() -> None:
    a, b = acquainted()
    for each in (a, b):
        each.poll(1.0)
    before = a.peers[1].round_trip
    talk(a, b, now_s=1.3)
    assert a.peers[1].pulse.mean_s == pytest.approx(0.3)
    assert a.peers[1].round_trip == before


def test_a_link_on_which_a_chunk_takes_longer_than_silence_may_last_stays_alive() -> None:
    """A chunk is 8 s on its way, a sign of life a tenth of one."""
    trace: list[dict[str, Any]] = []
    graph = family("line", 2, rate=0.05)
    c = cluster(
        graph, Gossip(), Poisson(), 2000, trace=trace, merge=False,
        network=Network(graph, Link(0.1, 8 * 1000.0)), limits=Limits(chunk=1000),
    )  # fmt: skip
    c.run(600.0)
    assert not [event for event in trace if event["event"] == "fault"]
    assert sum(worker.context.stats.completed for worker in c.workers.values()) > 5
    for worker in c.workers.values():
        (round_trip_s,) = worker.context.stats.round_trips_s.values()
        assert 0.2 <= round_trip_s < 0.5


def test_a_silent_edge_is_left_alone_and_comes_back() -> None:
    trace: list[dict[str, Any]] = []
    c = cluster(
        LINE, Gossip(), Never(), trace=trace, merge=False, network=Network(LINE, Link(0.05)),
        faults=[cut(0, 1, 5.0, 6.0)],
    )  # fmt: skip
    c.run(10.0)
    assert {worker.peers[1 - worker.me].state for worker in c.workers.values()} == {"silent"}
    c.run(20.0)
    assert {worker.peers[1 - worker.me].state for worker in c.workers.values()} == {"alive"}
    assert [event["event"] for event in trace if event["s"] > 10] == ["heard again"] * 2
    np.testing.assert_allclose(
        [*c.workers[0].context.stats.round_trips_s.values()], [0.1], rtol=1e-6
    )
