"""Workers that come back: heard again after they were given up, or begun again as another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Acid, Gossip
from decent.errors import RuntimeFault
from decent.schedule import Never, Poisson
from decent.testing import (
    Cluster,
    Fault,
    Limits,
    Network,
    cluster,
    cut,
    kill,
    lose,
    pause,
    rejoin,
    resume,
)
from decent.topology import Link, family
from decent.worker import Packet, StepClock
from decent.worker import messages as m
from decent.worker.audit import audit

from .common import examples
from .ledgers import DYNAMICS, Ledgers, as_written, learner

QUICK = Limits(chunk=2, window=2, silent_s=1.5, dead_s=4.0, start_s=20.0)
RING = family("ring", 4, rate=1.0)


def run(
    faults: list[Fault], dynamics: Any, ledgers: Ledgers, trace: list[dict[str, Any]] | None = None,
    *, seed: int = 5, steps: int = 40, every: int = 4, limits: Limits = QUICK, **options: Any,
) -> Cluster:  # fmt: skip
    network = Network(RING, Link(0.2), seed, jitter=0.5, loss=0.03)
    return cluster(
        RING, dynamics, Poisson(), 7, steps=steps, learner=learner(seed), seed=seed, faults=faults,
        network=network, limits=limits, checkpoint_every=every, ledgers=ledgers, clock=StepClock,
        trace=trace, **options,
    )  # fmt: skip


def balanced(c: Cluster, ledgers: Ledgers) -> list[str]:
    """The books balance; why chunks were settled by rule."""
    c.close()
    report = audit(as_written(ledgers))
    assert report.balanced, report.culprits
    return [settled.why for settled in report.settled]


def happened(trace: list[dict[str, Any]], what: str) -> list[tuple[int, int]]:
    """(worker, peer) of such events."""
    return [
        (event["worker"], event["peer"])
        for event in trace
        if what in (event["event"], event.get("what"))
    ]


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda d: d.name)
def test_two_sides_of_a_cut_find_together_again(dynamics: Any) -> None:
    """Cut for longer than dead_s: each takes the other for dead, and back."""
    trace: list[dict[str, Any]] = []
    ledgers: Ledgers = {}
    c = run([cut(0, 1, 5, 12), cut(2, 3, 5, 12)], dynamics, ledgers, trace)
    c.run(16.9)
    assert c.workers[0].peers[1].state == c.workers[1].peers[0].state == "dead"
    assert c.workers[2].peers[3].state == c.workers[3].peers[2].state == "dead"
    c.run(300.0)
    assert c.finished()
    assert c.merges[0].among == (0, 1, 2, 3)
    pairs = {(0, 1), (1, 0), (2, 3), (3, 2)}
    assert set(happened(trace, "peer dead")) == set(happened(trace, "heard again")) == pairs
    applied = [event for event in trace if event["event"] == "apply" and event["s"] > 17.5]
    assert {(event["worker"], event["peer"]) for event in applied} >= {(0, 1), (1, 0)}
    for why in balanced(c, ledgers):
        assert "the peer is dead" in why


def test_who_slept_too_long_is_taken_back() -> None:
    trace: list[dict[str, Any]] = []
    ledgers: Ledgers = {}
    c = run([pause(2, 6, 9)], Acid(), ledgers, trace).run(300.0)
    assert c.finished()
    assert c.merges[0].among == (0, 1, 2, 3)
    assert {(1, 2), (3, 2)} <= set(happened(trace, "peer dead"))
    assert not {(2, 1), (2, 3)} & set(happened(trace, "peer dead"))
    balanced(c, ledgers)


def test_not_once_a_merge_has_begun_without_it() -> None:
    """No two models claim to be that of all."""
    ledgers: Ledgers = {}
    c = run([pause(2, 6, 60)], Gossip(), ledgers, steps=20).run(300.0)
    assert c.merges[0].among == (0, 1, 3)
    assert "declared dead" in c.down[2] or "merged without" in c.down[2]
    balanced(c, ledgers)


def hello(c: Cluster, src: int, dst: int, epoch: int) -> Packet:
    identity = c.workers[src].identity
    fields = {name: getattr(identity, name) for name in ("workers", "values", "chunk", "dtype")}
    return Packet(m.Hello(
        src, dst, epoch, digest="", codec=identity.codec, answer=True, asked_s=0.0, to_epoch=0,
        **fields,
    ))  # fmt: skip


def test_who_has_said_good_bye_comes_back_as_another_alone() -> None:
    c = run([], Gossip(), {}, merge=False)
    c.run(5.0)
    one = c.workers[1]
    one.receive(Packet(m.Gone(0, 1, 0, reason="it stops")), c.now_s)
    assert one.peers[0].state == "dead"
    one.receive(Packet(m.Beat(0, 1, 0)), c.now_s)  # late
    assert one.peers[0].state == "dead"
    one.receive(hello(c, 0, 1, epoch=0), c.now_s)
    assert one.peers[0].state == "dead"
    one.receive(hello(c, 0, 1, epoch=7), c.now_s)
    assert (one.peers[0].state, one.peers[0].epoch) == ("alive", 7)


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda d: d.name)
def test_who_was_killed_goes_on_from_its_own_checkpoint(dynamics: Any) -> None:
    trace: list[dict[str, Any]] = []
    ledgers: Ledgers = {}
    c = run([kill(1, 15.3), rejoin(1, 17.5)], dynamics, ledgers, trace)
    c.run(17.4)
    kept = c.saved[1][-1]
    c.run(17.6)
    assert c.workers[1].context.clock.steps == kept["clock"]["steps"] > 10
    np.testing.assert_array_equal(c.workers[1].slots.array[0], kept["slots"]["array"][0])
    c.run(300.0)
    assert c.finished()
    assert c.merges[0].among == (0, 1, 2, 3)
    assert {(0, 1), (2, 1)} == set(happened(trace, "peer restarted"))
    assert not happened(trace, "peer dead")
    assert c.workers[1].context.stats.completed > 0
    balanced(c, ledgers)


def test_also_when_it_was_given_up() -> None:
    trace: list[dict[str, Any]] = []
    ledgers: Ledgers = {}
    c = run([kill(1, 9.3), rejoin(1, 19.0)], Acid(), ledgers, trace).run(300.0)
    assert c.finished()
    assert c.merges[0].among == (0, 1, 2, 3)
    assert {(0, 1), (2, 1)} == set(happened(trace, "peer dead"))
    balanced(c, ledgers)


@pytest.mark.parametrize("dynamics", DYNAMICS, ids=lambda d: d.name)
def test_without_a_checkpoint_it_takes_over_a_neighbours_parameters(dynamics: Any) -> None:
    """Never fresh ones. Nothing changes at the neighbour; messages may be lost."""
    trace: list[dict[str, Any]] = []
    ledgers: Ledgers = {}
    faults = [kill(1, 15.3), rejoin(1, 16.5), lose(0.3, 16.5, 3.0)]
    c = run(faults, dynamics, ledgers, trace, every=0)
    c.run(16.4)
    c.run(60.0, until=lambda c: c.now_s > 16.6 and c.workers[1].adoption is None)
    one = c.workers[1]
    shown = [c.workers[peer].slots.array[0] for peer in (0, 2)]
    away = min(float(np.abs(one.slots.array[0] - each).max()) for each in shown)
    assert away < 0.5  # a step or two on, at most
    assert not any(exchange for exchange in one.exchanges.open.values())
    assert abs(one.context.clock.steps - c.workers[0].context.clock.steps) <= 2
    contacts = one.context.stats.started + sum(one.context.stats.skipped.values())
    assert contacts == 0  # what its former self should have done is not made up for
    c.run(300.0)
    assert c.finished()
    assert c.merges[0].among == (0, 1, 2, 3)
    assert one.context.stats.completed > 0
    balanced(c, ledgers)


def test_reading_changes_nothing_at_the_neighbour() -> None:
    c = cluster(RING, Acid(), Never(), 7, limits=QUICK, merge=False)
    c.run(2.0)
    before = c.total()
    c.rejoin(1)
    c.run(8.0)
    one, zero = c.workers[1], c.workers[0]
    assert one.adoption is None
    np.testing.assert_array_equal(one.slots.array[0], zero.slots.array[0])
    np.testing.assert_array_equal(one.slots.array[1], 0)
    changed = before - c.total()
    assert np.abs(changed).max() > 0  # its former self's are lost
    others = [c.workers[me].slots.array for me in (0, 2, 3)]
    fresh = cluster(RING, Acid(), Never(), 7, limits=QUICK, merge=False)
    for mine, untouched in zip(others, (0, 2, 3), strict=True):
        np.testing.assert_array_equal(mine, fresh.workers[untouched].slots.array)


def test_nobody_to_take_over_from() -> None:
    faults = [kill(me, 5.0) for me in (0, 1, 2)] + [rejoin(1, 6.0)]
    c = run(faults, Gossip(), {}, every=0).run(60.0)
    assert "no neighbour that it could take parameters from" in c.down[1]
    assert isinstance(c.workers[1].context.fatal, RuntimeFault)


@examples(20)
@given(st.data(), st.sampled_from(DYNAMICS), st.integers(0, 99))
def test_the_books_balance_whoever_comes_back(
    data: st.DataObject, dynamics: Any, seed: int
) -> None:
    """Workers killed and back, alone or all at once, links cut for longer than dead_s."""
    who, time = st.integers(0, 3), st.floats(2, 25)
    span = st.tuples(time, st.floats(0, 12))
    makers = [
        st.builds(rejoin, who, time),
        st.builds(resume, time),
        st.builds(lambda i, span: cut(i, (i + 1) % 4, *span), who, span),
        st.builds(lambda i, span: pause(i, *span), who, span),
    ]
    ledgers: Ledgers = {}
    faults = data.draw(st.lists(st.one_of(makers), min_size=1, max_size=4))
    c = run(
        faults, dynamics, ledgers, seed=seed, every=data.draw(st.sampled_from([0, 3])),
        limits=replace(QUICK, dead_s=data.draw(st.sampled_from([4.0, 1e9]))),
    ).run(400.0)  # fmt: skip
    assert c.finished()
    balanced(c, ledgers)
