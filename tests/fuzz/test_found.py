"""What fuzzing has found, one by one: each was an error, a stranger's say, or kept for ever."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent.dynamics import Gossip
from decent.schedule import Never
from decent.topology import family
from decent.worker import Limits, Packet, UniformClock, Worker
from decent.worker import messages as m
from decent.worker.context import TRACED

RING = family("ring", 5)
LIMITS = Limits(chunk=4, window=2)


def worker(dtype: str = "f8", met: bool = True) -> tuple[Worker, list[dict[str, Any]]]:
    """Worker 1 of a ring of five, with five chunks; its neighbours 0 and 2 have greeted it."""
    trace: list[dict[str, Any]] = []
    made = Worker(
        1, RING, Gossip(), Never(), np.zeros((1, 20), dtype), clock=UniformClock(), limits=LIMITS,
        record=trace.append,
    )  # fmt: skip
    made.start(0.0)
    for src in (0, 2) if met else ():
        hello = m.Hello(
            src, 1, 3, 5, "", 20, 4, np.dtype(dtype).str, "exact", False, asked_s=0.0, to_epoch=0
        )
        made.receive(Packet(hello), 0.0)
    made.outbox.clear()
    return made, trace


def request(src: int = 0, chunk: int = 0, mix: float = 0.5, value: float = 1.0, dtype: str = "f8",
            check: int | None = None, **fields: Any) -> Packet:  # fmt: skip
    payload = np.full(4, value, dtype).view(np.uint8)
    head = {"seq": 1, "settled": 0, "to_epoch": 0, "asked_s": 0.0, **fields}
    return Packet(m.Request(src, 1, 3, chunk=chunk, mix=(mix,), **head), payload, check)


def said(by: Worker) -> list[m.Message]:
    messages = [packet.message for packet in by.outbox]
    by.outbox.clear()
    return messages


def test_who_declines_without_a_reason() -> None:
    """It ended the exchange as if all had been mixed, and that was an error."""
    one, trace = worker()
    one.exchanges.start(one.peers[0], 1.0)
    for sent in [each for each in said(one) if isinstance(each, m.Request)]:
        one.receive(Packet(m.Decline(0, 1, 3, 0, sent.seq, sent.chunk, "")), 1.0)
    assert not one.exchanges.open
    assert [each["reason"] for each in trace if each.get("what") == "exchange abandoned"] == [
        "declined: without a reason"
    ]


@pytest.mark.parametrize("src", [1, 5, 2**53 - 1])
def test_a_stranger_cannot_declare_anyone_dead(src: int) -> None:
    one, _ = worker()
    reduction = one.reduce(0, one.slots.array[0], 1.0, 1.0)
    said(one)
    for dead in [(1,), (0, 2)]:
        one.receive(Packet(m.Obituary(src, 1, 0, 0, dead)), 1.0)
    assert one.context.fatal is None
    assert reduction.dead == set()
    assert said(one) == []


def test_a_strangers_damage_is_not_damage() -> None:
    one, trace = worker()
    before = len(trace)
    one.receive(request(src=9, check=0), 1.0)
    assert (one.context.stats.damaged, one.context.stats.refused) == (0, 1)
    assert len(trace) == before


def test_in_its_own_name_it_gets_no_answer() -> None:
    """A worker answered itself, and dialled itself to say so."""
    one, _ = worker()
    for message in (m.Beat(1, 1, 0), m.Gone(1, 1, 0, ""), m.Obituary(1, 1, 0, 0, ())):
        one.receive(Packet(message), 1.0)
    assert said(one) == []


def test_no_more_than_a_window_of_replies_is_remembered() -> None:
    """One who settles nothing had a whole model kept."""
    one, _ = worker()
    for chunk in range(5):
        one.receive(request(chunk=chunk), 1.0)
    answers = said(one)
    assert [type(each) for each in answers] == [m.Change] * 2 + [m.Decline] * 3
    assert isinstance(answers[2], m.Decline)
    assert answers[2].reason == "2 chunks before it are not settled"
    assert len(one.peers[0].answers.replies) == 2
    one.receive(request(seq=2, chunk=4), 1.0)
    assert isinstance(said(one)[0], m.Change)


@pytest.mark.parametrize(("dtype", "mix"), [("f8", 1e300), ("f4", 1e300), ("f4", -1e30)])
def test_what_is_mixed_in_is_finite(dtype: str, mix: float) -> None:
    """Both the difference and the coefficient were, and their product was not."""
    one, _ = worker(dtype)
    one.receive(request(mix=mix, value=1e10, dtype=dtype), 1.0)
    assert isinstance(said(one)[0], m.Decline)
    assert not one.slots.array.any()
    assert one.context.fatal is None


def test_those_who_have_buried_each_other_are_silent() -> None:
    """Each told the other for ever whom it merges without."""
    one, _ = worker()
    reduction = one.reduce(0, one.slots.array[0], 1.0, 1.0)
    one.receive(Packet(m.Obituary(0, 1, 3, 0, (2,))), 1.0)
    assert reduction.dead == {2}
    said(one)
    one.receive(Packet(m.Obituary(2, 1, 3, 0, (1,))), 1.0)
    assert said(one) == []
    assert one.context.fatal is None


def test_nobody_is_closed_without_a_result() -> None:
    one, _ = worker()
    reduction = one.reduce(0, one.slots.array[0], 1.0, 1.0)
    one.receive(Packet(m.Close(0, 1, 3, 0, ())), 1.0)
    assert not reduction.closed


def test_refusals_fill_no_disk() -> None:
    one, trace = worker()
    for _ in range(3 * TRACED):
        one.receive(Packet(m.Refuse(9, -1, 0, "no")), 1.0)
        one.receive(Packet(m.Settled(0, 1, 3, to_epoch=7, seq=0)), 1.0)
    assert one.context.stats.refused == 6 * TRACED
    assert len([event for event in trace if event["event"] == "refused"]) == TRACED
