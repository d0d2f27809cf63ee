"""Faults that are planted behind the ledgers' back: the audit names each, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from decent.dynamics import Acid, Dadao, Dynamics, Gossip
from decent.schedule import Poisson
from decent.testing import Limits, Network, cluster
from decent.topology import Link
from decent.worker import Slots
from decent.worker.audit import Culprit, Report, audit
from decent.worker.peers import Peer

from .ledgers import DYNAMICS, LINE, Ledgers, as_written, learner


class Planted:
    """A run on a line of three, in which something goes wrong once, at `at_s` or soon after."""

    def __init__(self, dynamics: Dynamics, seed: int = 1) -> None:
        self.ledgers: Ledgers = {}
        self.cluster = cluster(
            LINE, dynamics, Poisson(), 40, steps=220, learner=learner(seed), ledgers=self.ledgers,
            limits=Limits(chunk=16), network=Network(LINE, Link(0.05)), seed=seed,
        )  # fmt: skip
        self.struck: dict[str, Any] = {}

    def once(self, worker: int, name: str, wrong: Callable[..., Any], at_s: float = 130.0) -> None:
        """From `at_s` on, the first call of a method of the worker's exchanges is `wrong`."""
        exchanges = self.cluster.workers[worker].exchanges
        right = getattr(exchanges, name)

        def either(peer: Peer, packet: Any, *given: Any) -> None:
            if self.struck or self.cluster.now_s < at_s:
                right(peer, packet, *given)
                return
            about = packet.message
            self.struck = {"peer": peer.id, "seq": about.seq, "chunk": about.chunk}
            wrong(right, peer, packet, *given)

        setattr(exchanges, name, either)

    def audit(self) -> Report:
        self.cluster.run(1000.0)
        assert self.cluster.finished()
        assert self.struck
        return audit(as_written(self.ledgers))

    def names(self, culprit: Culprit, starter: int, answerer: int) -> bool:
        """Whether it is the exchange that was struck."""
        assert culprit.exchange is not None
        struck = self.struck["seq"], self.struck["chunk"]
        return culprit.exchange == (starter, answerer, (0, 0), *struck)


@pytest.fixture(params=DYNAMICS, ids=lambda dynamics: dynamics.name)
def planted(request: pytest.FixtureRequest) -> Planted:
    return Planted(request.param)


def test_nothing_planted_nothing_found(planted: Planted) -> None:
    planted.struck["s"] = 0
    assert planted.audit().balanced


def test_a_lost_half_is_named(planted: Planted) -> None:
    """A starter takes a reply for applied, and has not applied it."""

    def lost(right: Any, peer: Peer, *given: Any) -> None:
        slots = planted.cluster.workers[1].slots
        slots.add = lambda *_: 0.0  # type: ignore[method-assign]
        right(peer, *given)
        del slots.add

    planted.once(1, "on_reply", lost)
    report = planted.audit()
    [culprit] = report.culprits
    assert planted.names(culprit, 1, planted.struck["peer"])
    assert 130.0 <= culprit.s < 140.0
    assert "without effect at worker 1" in culprit.what
    assert report.edges[0].workers == tuple(sorted(culprit.workers))  # worst first
    assert report.off > report.bound


def test_a_reply_that_never_is_applied_is_named() -> None:
    """A starter counts a chunk as mixed, and has not even tried."""
    planted = Planted(Dadao(1.0, 20.0))

    def forgotten(right: Any, peer: Peer, packet: Any, *given: Any) -> None:
        exchange, chunk = planted.cluster.workers[0].exchanges.open[peer.id], packet.message.chunk
        exchange.land(chunk, 16 if chunk < 2 else 8, 0.0, 0.0)

    planted.once(0, "on_reply", forgotten)
    report = planted.audit()
    assert planted.names(report.culprits[0], 0, 1)
    assert "mixed at worker 1, and not at worker 0" in report.culprits[0].what


def test_a_request_that_is_applied_twice_is_named(planted: Planted) -> None:
    """A responder forgets that it has answered."""

    def twice(right: Any, peer: Peer, packet: Any, *given: Any) -> None:
        right(peer, packet, *given)
        peer.answers.answered.discard(packet.message.chunk)
        right(peer, packet, *given)

    planted.once(2, "on_request", twice)
    [culprit] = planted.audit().culprits
    assert planted.names(culprit, 1, 2)
    assert culprit.off > 1e3 * culprit.bound


@pytest.mark.parametrize("bit", [40, 51, 53, 63])
def test_a_bit_flipped_on_the_way_is_named(bit: int) -> None:
    """Where no checksum was looked at."""
    planted = Planted(Acid())

    def flipped(right: Any, peer: Peer, packet: Any, *given: Any) -> None:
        other = packet.payload.copy()
        other.view(np.uint64)[3] ^= np.uint64(1 << bit)
        right(peer, packet._replace(payload=other), *given)

    planted.once(1, "on_reply", flipped)
    [culprit] = planted.audit().culprits
    assert planted.names(culprit, 1, planted.struck["peer"])
    assert "the ends mixed different values" in culprit.what


def test_a_bit_flipped_in_a_request_is_flipped_for_both() -> None:
    """Both ends mix the difference that the responder has found, so their mean stays."""
    planted = Planted(Acid())

    def flipped(right: Any, peer: Peer, packet: Any, *given: Any) -> None:
        other = packet.payload.copy()
        other.view(np.uint64)[3] ^= np.uint64(1 << 51)
        right(peer, packet._replace(payload=other), *given)

    planted.once(0, "on_request", flipped)
    assert planted.audit().balanced


@pytest.mark.parametrize("by", [1e-6, 1e3])
def test_parameters_changed_behind_the_back_are_named(planted: Planted, by: float) -> None:
    def act() -> None:
        planted.cluster.workers[1].slots.array[0, 20] += by

    planted.struck["s"] = 130.0
    planted.cluster.at(130.0, act)
    report = planted.audit()
    [culprit] = report.culprits
    assert culprit.exchange is None
    assert culprit.workers == [1]
    assert "worker 1, steps 100–200" in culprit.what
    assert "chunk 1: its state was changed by neither steps, exchanges nor drift" in culprit.what
    assert culprit.s == pytest.approx(200.0, abs=1.0)


@pytest.mark.parametrize(("times", "how"), [(0, "and not applied"), (2, "applied twice")])
def test_what_was_entered_and_not_done_is_named(
    times: int, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger is told of a mix that the rows have seen never, or twice."""
    planted = Planted(Gossip())
    right = Slots._mix

    def wrong(slots: Slots, chunk: int, *given: Any) -> float | None:
        mine = slots is planted.cluster.workers[1].slots and not planted.struck
        if not mine or planted.cluster.now_s < 130.0:
            return right(slots, chunk, *given)
        planted.struck.update(chunk=chunk)
        rows = slots.array[:, slots.span(chunk)]
        before = rows.copy()
        squared = right(slots, chunk, *given)
        rows[:] = before + times * (rows - before)
        return squared

    monkeypatch.setattr(Slots, "_mix", wrong)
    [culprit] = planted.audit().culprits
    assert culprit.workers == [1]
    assert how in culprit.what
    assert f"chunk {planted.struck['chunk']}" in culprit.what


def test_a_mix_that_no_exchange_made_is_named() -> None:
    planted = Planted(Gossip())

    def act() -> None:
        slots = planted.cluster.workers[2].slots
        slots.add(0, planted.cluster.now_s, np.ones(16), np.array([0.5]))

    planted.struck["s"] = 130.0
    planted.cluster.at(130.0, act)
    [culprit] = planted.audit().culprits
    assert culprit.workers == [2]
    assert "what no exchange in its ledger says" in culprit.what


def test_a_wrong_drift_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same wrong matrix goes to the rows and to the books; what it breaks is the invariant."""
    planted = Planted(Acid())
    planted.struck["s"] = 0.0
    slots = planted.cluster.workers[0].slots
    right = slots._apply
    monkeypatch.setattr(slots, "_apply", lambda chunk, change: right(chunk, change + 1e-6))
    report = planted.audit()
    assert report.culprits
    assert all(culprit.workers == [0] for culprit in report.culprits)


def test_a_merge_that_is_not_the_mean_is_named() -> None:
    planted = Planted(Gossip())
    planted.struck["s"] = 0.0
    planted.cluster.run(1000.0)
    lines = as_written(planted.ledgers)
    [merge] = [line for line in lines[2] if line["event"] == "merge"]
    merge["after"][0] += 1e-3
    [culprit] = audit(lines).culprits
    assert culprit.workers == [2]
    assert "its merge is not the mean of what 3 workers put in" in culprit.what
