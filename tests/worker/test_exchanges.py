"""Exchanges, greetings and restarts between workers driven by hand, message by message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from decent.dynamics import Acid, Gossip
from decent.errors import DynamicsError, PeerRefused, RuntimeFault
from decent.schedule import Contact, Never, Poisson, View, as_schedule
from decent.testing import Beside, Limits, Network, cluster, cut, kill
from decent.topology import Link, Topology, family
from decent.worker import Packet, UniformClock, Worker, codecs
from decent.worker import messages as m

LINE = family("line", 2)


def worker(me: int, value: float = 0.0, topology: Topology = LINE, **options: Any) -> Worker:
    values = options.pop("values", 4)
    options.setdefault("limits", Limits(chunk=2, window=2))
    state = np.full((1, values), value)
    schedule = options.pop("schedule", Never())
    return Worker(me, topology, Gossip(), schedule, state, clock=UniformClock(), **options)


def said(speaker: Worker, *kinds: type[m.Message]) -> list[Packet]:
    """What it has said since it was last asked; of these kinds, if any are given."""
    packets, speaker.outbox[:] = list(speaker.outbox), []
    return [each for each in packets if not kinds or isinstance(each.message, kinds)]


def talk(*workers: Worker, now_s: float = 0.0) -> None:
    """Deliver everything until nobody has anything to say."""
    by_id = {each.me: each for each in workers}
    while any(each.outbox for each in workers):
        for each in workers:
            for packet in said(each):
                if packet.message.dst in by_id:
                    by_id[packet.message.dst].receive(packet, now_s)


def acquainted(**options: Any) -> tuple[Worker, Worker]:
    pair = worker(0, 0.0, **options), worker(1, 1.0, **options)
    for each in pair:
        each.start(0.0)
    talk(*pair)
    assert all(each.ready for each in pair)
    return pair


def begin(initiator: Worker, now_s: float = 0.0) -> list[Packet]:
    peer = next(iter(initiator.peers.values()))
    initiator.exchanges.start(peer, now_s)
    return said(initiator, m.Request)


# one exchange


def test_an_exchange_averages_and_leaves_nothing_behind() -> None:
    a, b = acquainted()
    for packet in begin(a):
        b.receive(packet, 0.0)
    talk(a, b)
    for each in (a, b):
        np.testing.assert_array_equal(each.slots.array, 0.5)
        assert not each.exchanges.open
    assert b.peers[0].answers.replies == {}
    assert (a.context.stats.completed, b.context.stats.answered) == (1, 1.0)
    assert a.context.stats.models_sent == b.context.stats.models_sent == 1.0
    assert a.context.stats.last_distance == 2.0  # ‖(1, 1, 1, 1)‖


def test_a_request_that_comes_twice_changes_nothing_and_gets_the_same_answer() -> None:
    a, b = acquainted()
    request = begin(a)[0]
    b.receive(request, 0.0)
    (first,) = said(b, m.Change)
    state = b.slots.array.copy()
    b.slots.array[:, 3] += 1  # of another chunk
    b.receive(request, 0.0)
    (second,) = said(b, m.Change)
    np.testing.assert_array_equal(b.slots.array[:, :3], state[:, :3])
    np.testing.assert_array_equal(first.payload, second.payload)
    assert b.context.stats.duplicates == 1
    a.receive(first, 0.0)
    state = a.slots.array.copy()
    a.receive(second, 0.0)
    np.testing.assert_array_equal(a.slots.array, state)


def test_an_old_request_makes_the_peer_forget_nothing_new() -> None:
    """A request of a finished exchange, delayed on its way, says `settled` of *its* exchange."""
    a, b = acquainted(limits=Limits(chunk=2, window=1))
    first = begin(a)
    b.receive(first[0], 0.0)
    for reply in said(b, m.Change):
        a.receive(reply, 0.0)
    late = said(a, m.Request)  # chunk 1, settled = 1
    b.receive(late[0], 0.0)
    talk(a, b)
    second = begin(a)
    b.receive(second[0], 0.0)
    assert said(b, m.Change)  # is lost
    b.receive(late[0], 0.0)
    assert not said(b, m.Change)
    b.receive(second[0], 0.0)
    assert said(b, m.Change)


def test_what_is_declined_stays_declined() -> None:
    """Or a copy of the request that comes later is mixed at one end alone."""
    a, b = acquainted()
    begin(a)
    requests = begin(b)
    a.receive(requests[0], 0.0)
    (decline,) = said(a, m.Decline)
    a.exchanges.abandon(a.peers[1], "for the test", 0.0)  # a is free now
    for request in requests:
        a.receive(request, 0.0)
    assert {p.message.chunk for p in said(a, m.Decline)} == {0, 1}  # type: ignore[attr-defined]
    np.testing.assert_array_equal(a.slots.array, 0.0)
    assert decline.message.reason == "both ends started at once"  # type: ignore[attr-defined]


def test_a_declined_chunk_does_not_void_the_others() -> None:
    a, b = acquainted()
    first, second = begin(a)
    b.receive(first, 0.0)
    (reply,) = said(b, m.Change)
    b.exchanges.on_request(b.peers[0], second, 0.0, "merging")
    for packet in [*said(b, m.Decline), reply]:  # overtaken
        a.receive(packet, 0.0)
    assert not a.exchanges.open
    assert a.context.stats.abandoned == 1
    np.testing.assert_array_equal(a.slots.array + b.slots.array, 1.0)
    np.testing.assert_array_equal(a.slots.array[0], [0.5, 0.5, 0, 0])


def test_what_is_not_answered_is_asked_again_ever_more_slowly_up_to_a_limit() -> None:
    """The peer lives: a chunk that was unlucky some times must not hold up the edge, and with it
    the merge, for minutes."""
    a, b = acquainted()
    begin(a)
    asked = []
    for tenth in range(1, 400):
        b.outbox.clear()
        a.poll(tenth / 10)
        a.receive(Packet(m.Beat(1, 0, 0)), tenth / 10)
        asked += [tenth / 10] * len(said(a, m.Request))
    times = [0.3, 0.8, 1.8, 3.8, 7.8, 15.8, 23.8, 31.8, 39.8]
    assert asked == [each for each in times for _ in range(2)]
    assert a.context.stats.repeated == 18
    assert a.wake_s(39.9) <= 40.4


def test_an_answer_tells_which_asking_it_is_to() -> None:
    a, b = acquainted()
    begin(a)
    for now_s in (0.3, 0.8, 1.8):
        a.poll(now_s)
        last = said(a, m.Request)
    for request in last:
        b.receive(request, 1.9)
    for reply in said(b, m.Change):
        a.receive(reply, 2.0)
    assert not a.exchanges.open
    assert 0 < a.peers[1].round_trip.mean_s < 0.2  # type: ignore[operator]


def test_where_answers_take_longer_than_the_limit_little_is_said_twice() -> None:
    graph = family("line", 2, rate=0.1)
    c = cluster(
        graph, Gossip(), Poisson(), network=Network(graph, Link(15.0)), merge=False,
        limits=Limits(chunk=4, silent_s=1e9, dead_s=1e9),
    )  # fmt: skip
    c.run(1000.0)
    stats = [each.context.stats for each in c.workers.values()]
    completed = sum(each.completed for each in stats)
    assert completed > 8
    assert sum(each.repeated for each in stats) <= 2


# side by side


def seen(look: Packet, at: Worker) -> Packet:
    """As the wire hands it on: with what stands at its sender now."""
    span = at.slots.span(look.message.chunk)  # type: ignore[attr-defined]
    return look._replace(payload=at.slots.array[0, span].view(np.uint8))


def looking() -> tuple[Worker, Worker, list[Packet]]:
    a, b = acquainted(near=Beside())
    a.exchanges.start(a.peers[1], 0.0)
    return a, b, said(a, m.Look)


def test_values_are_seen_as_they_are_when_they_are_read() -> None:
    """And what happens meanwhile to either end is kept."""
    a, b, looks = looking()
    assert [look.payload for look in looks] == [None, None]
    a.slots.array[0, 0] += 10.0  # between the look and the reading
    for look in looks:
        b.receive(seen(look, a), 0.0)
    a.slots.array[0, 0] += 100.0  # before the answer is here
    b.slots.array[0, 1] += 1000.0
    for change in said(b, m.Change):
        a.receive(change, 0.0)
    np.testing.assert_array_equal(a.slots.array[0], [105.5, 0.5, 0.5, 0.5])
    np.testing.assert_array_equal(b.slots.array[0], [5.5, 1000.5, 0.5, 0.5])
    assert a.context.stats.completed == 1
    assert a.context.stats.models_sent == b.context.stats.models_sent == 1.0


def test_who_sees_nothing_is_sent_the_values_and_not_asked_to_look_again() -> None:
    a, b, looks = looking()
    for look in looks:
        b.receive(look, 0.0)  # without what should be seen
    assert b.context.stats.refused == 2
    a.poll(1.0)
    for request in said(a, m.Request):
        b.receive(request, 1.0)
    talk(a, b, now_s=1.0)
    np.testing.assert_array_equal(a.slots.array, 0.5)
    np.testing.assert_array_equal(b.slots.array, 0.5)
    assert len(begin(a, 2.0)) == 2


@pytest.mark.parametrize("lost", ["look", "change"])
def test_a_look_or_its_answer_is_lost(lost: str) -> None:
    a, b, looks = looking()
    if lost == "change":
        for look in looks:
            b.receive(seen(look, a), 0.0)
        b.outbox.clear()
    a.poll(1.0)
    a.slots.array[:] += 1.0  # the answer is to what was seen, not to what is sent now
    talk(a, b, now_s=1.0)
    np.testing.assert_array_equal(a.slots.array + b.slots.array, 2.0)
    assert a.context.stats.completed == 1
    assert b.context.stats.duplicates == (2 if lost == "change" else 0)


def test_a_payload_that_is_overwritten_while_it_is_read_is_asked_for_again() -> None:
    a, b = acquainted()
    requests = begin(a)
    for request in requests:
        b.receive(request._replace(intact=lambda: False), 0.0)
    assert not said(b, m.Change, m.Decline)
    np.testing.assert_array_equal(b.slots.array, 1.0)
    for request in requests:
        b.receive(request._replace(intact=lambda: True), 0.0)
    for reply in said(b, m.Change):
        a.receive(reply._replace(intact=lambda: False), 0.0)
    np.testing.assert_array_equal(a.slots.array, 0.0)
    a.poll(1.0)
    talk(a, b, now_s=1.0)
    np.testing.assert_array_equal(a.slots.array, 0.5)
    np.testing.assert_array_equal(b.slots.array, 0.5)


def test_what_is_not_finite_is_seen_and_not_mixed() -> None:
    a, b, looks = looking()
    a.slots.array[0, 1] = np.nan
    for look in looks:
        b.receive(seen(look, a), 0.0)
    np.testing.assert_array_equal(b.slots.array, 1.0)
    for decline in said(b, m.Decline):
        a.receive(decline, 0.0)
    assert "not finite" in str(a.context.fatal)


def test_a_look_where_messages_are_not_the_values_is_declined() -> None:
    codec = codecs.get("bf16")
    a, b = acquainted(near=Beside(), codec=codec)
    assert len(begin(a)) == 2  # requests, not looks
    look = m.Look(0, 1, 0, to_epoch=0, seq=0, chunk=0, asked_s=0.0, settled=0, mix=(0.5,))
    b.receive(Packet(look, np.zeros(16, np.uint8)), 0.0)
    (decline,) = said(b, m.Decline)
    assert "a look" in decline.message.reason  # type: ignore[attr-defined]


# crossing and skipping


def at_once(view: View) -> Iterator[Contact]:
    for time in (1.0, 5.0):
        for peer in view.rates:
            yield time, peer


def test_both_ends_start_at_once_and_one_exchange_happens() -> None:
    trace: list[dict[str, Any]] = []
    start = np.array([[0.0, 4.0], [2.0, 0.0]])
    c = cluster(
        LINE, Gossip(), at_once, initial=start, merge=False, trace=trace,
        network=Network(LINE, Link(0.3)), limits=Limits(chunk=1),
    )  # fmt: skip
    c.run(4.0)
    np.testing.assert_array_equal([w.slots.array[0] for w in c.workers.values()], [[1, 2]] * 2)
    stats = [each.context.stats for each in c.workers.values()]
    assert [each.completed for each in stats] == [1, 0]
    assert [each.skipped["both ends started at once"] for each in stats] == [0, 1]
    assert sum(event["event"] == "reply" for event in trace) == 2  # chunks
    c.run(8.0)
    assert [each.completed for each in stats] == [2, 0]


def test_an_edge_carries_one_exchange_at_a_time() -> None:
    trace: list[dict[str, Any]] = []
    graph = family("line", 2, rate=5.0)
    c = cluster(
        graph, Gossip(), Poisson(), 1, network=Network(graph, Link(0.3)), trace=trace, merge=False
    )
    c.run(60.0)
    order = [e["event"] for e in trace if e["event"] in ("reply", "apply")]
    assert len(order) > 50
    pairs = zip(order[::2], order[1::2], strict=False)
    assert set(pairs) == {("reply", "apply")}
    skipped = Counter(e["reason"] for e in trace if e["event"] == "skip")
    assert skipped == sum((w.context.stats.skipped for w in c.workers.values()), Counter())
    assert set(skipped) - {"peer expected"} == {"edge busy", "both ends started at once"}
    started = sum(w.context.stats.started for w in c.workers.values())
    crossed = skipped["both ends started at once"]
    assert started - crossed - len(order[::2]) in (0, 1)  # one may still be on its way


def test_skips_are_counted_by_reason() -> None:
    c = cluster(
        family("star", 4, rate=10.0), Gossip(), Poisson(), merge=False,
        network=Network(family("star", 4), Link(0.5)),
        limits=Limits(max_open=1, silent_s=2.0, dead_s=6.0),
        faults=[kill(3, 10.0), cut(0, 2, 10.0, 4.0)],
    )  # fmt: skip
    c.run(30.0)
    skipped = c.workers[0].context.stats.skipped
    assert {"too many open", "edge busy", "peer silent", "peer dead"} <= set(skipped)
    assert all(count > 0 for count in skipped.values())
    assert c.workers[0].peers[2].state == "alive"  # heard again
    hermit = worker(0, schedule=as_schedule(at_once))
    hermit.start(0.0)
    hermit.poll(1.0)
    assert hermit.context.stats.skipped == {"peer expected": 1}


def test_a_system_that_mixes_nothing_needs_a_schedule_that_never_does() -> None:
    class Mute(Gossip):
        def system(self, chi_1: float, chi_2: float) -> Any:
            return replace(super().system(chi_1, chi_2), message=np.zeros(1))

    with pytest.raises(DynamicsError, match=r"message \[0.0\]: expected an exchange that mixes"):
        Worker(0, LINE, Mute(), Poisson(), np.zeros((1, 2)))
    Worker(0, LINE, Mute(), Never(), np.zeros((1, 2)))


# greetings


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"digest": "other"}, "layout of the model: other at worker 1, ours at worker 0"),
        ({"values": 5}, "parameters in the model: 5 at worker 1, 4 at worker 0"),
        ({"limits": Limits(chunk=3)}, "values in a chunk: 3 at worker 1, 2 at worker 0"),
        ({"topology": family("line", 3)}, "workers in the run: 3 at worker 1, 2 at worker 0"),
    ],
)
def test_another_model_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    a, b = worker(0, digest="ours"), worker(1, **{"digest": "ours", **options})
    b.start(0.0)
    for packet in said(b):
        a.receive(packet, 0.0) if packet.message.dst == 0 else None
    (refusal,) = said(a)
    b.receive(refusal, 0.0)
    assert isinstance(b.context.fatal, PeerRefused)
    assert str(b.context.fatal) == f"worker 0 refuses: {words}"
    assert a.context.stats.refused == 1
    assert isinstance(a.context.fatal, PeerRefused)
    assert str(a.context.fatal) == words
    assert not a.ready


def test_another_number_format_is_refused_in_words() -> None:
    a = worker(0)
    single = Worker(1, LINE, Gossip(), Never(), np.zeros((1, 4), "f4"), limits=Limits(chunk=2))
    single.start(0.0)
    a.receive(said(single)[0], 0.0)
    (refusal,) = said(a, m.Refuse)
    assert "number format: <f4 at worker 1, <f8 at worker 0" in refusal.message.reason  # type: ignore[attr-defined]


def test_a_stranger_and_a_wrong_address_are_refused_in_words() -> None:
    line = family("line", 3)
    a, c = worker(0, topology=line), worker(2, topology=line)
    hello = m.Hello(2, 0, 0, 3, "", 4, 2, "<f8", "exact", True, 0.0, -1)
    a.receive(Packet(hello), 0.0)
    (refusal,) = said(a, m.Refuse)
    assert "worker 2 is not a neighbour of worker 0" in refusal.message.reason  # type: ignore[attr-defined]
    c.receive(Packet(m.Beat(1, 0, 0)), 0.0)
    (refusal,) = said(c, m.Refuse)
    assert "worker 0 was meant, this is worker 2" in refusal.message.reason  # type: ignore[attr-defined]


# epochs


def test_a_stale_epoch_is_ignored() -> None:
    a, b = acquainted(epoch=5)
    request = begin(a)[0]
    old = Packet(msgspec.structs.replace(request.message, epoch=4), request.payload)
    b.receive(old, 0.0)
    np.testing.assert_array_equal(b.slots.array, 1.0)
    assert b.context.stats.refused == 1
    assert not said(b, m.Change)
    b.receive(request, 0.0)
    assert said(b, m.Change)


def test_a_restarted_peer_settles_what_was_open() -> None:
    a, b = acquainted()
    trace: list[dict[str, Any]] = []
    a.context.record = trace.append
    begin(a)
    reborn = worker(1, 1.0, epoch=1)
    reborn.start(1.0)
    talk(a, reborn, now_s=1.0)
    assert not a.exchanges.open
    assert a.context.stats.abandoned == 1
    (fault,) = [event for event in trace if event.get("what") == "exchange abandoned"]
    assert (fault["reason"], fault["in_flight"]) == ("the peer has restarted", [0, 1])
    for packet in begin(a, 1.0):
        reborn.receive(packet, 1.0)
    talk(a, reborn, now_s=1.0)
    np.testing.assert_array_equal(a.slots.array, 0.5)
    b.exchanges.start(b.peers[0], 1.0)  # the old self is a ghost
    for packet in said(b, m.Request):
        a.receive(packet, 1.0)
    np.testing.assert_array_equal(a.slots.array, 0.5)


def test_who_leaves_is_not_waited_for() -> None:
    a, b = acquainted()
    begin(b)
    a.leave("its training process died")
    talk(a, b)
    assert b.peers[0].state == "dead"
    assert not b.exchanges.open
    reduction = b.reduce(0, b.slots.array[0], 1.0, 0.0)
    assert reduction.among == (1,)
    b.exchanges.start(b.peers[0], 0.0)
    assert b.context.stats.skipped == {"peer dead": 1}


# values that are not finite


@pytest.mark.parametrize("diverged", [0, 1])
def test_what_is_not_finite_is_never_mixed_and_the_diverged_worker_says_so(diverged: int) -> None:
    pair = acquainted()
    pair[diverged].slots.array[0, 1] = np.nan
    for packet in begin(pair[0]):
        pair[1].receive(packet, 0.0)
    talk(*pair)
    healthy = pair[1 - diverged]
    assert np.isfinite(healthy.slots.array).all()
    assert healthy.context.fatal is None
    fatal = pair[diverged].context.fatal
    assert isinstance(fatal, RuntimeFault)
    assert f"worker {diverged}'s parameters are not finite at step 0" in str(fatal)
    assert "training has diverged" in str(fatal)
    assert not pair[0].exchanges.open
    np.testing.assert_array_equal(pair[0].slots.array[0, 2:] + pair[1].slots.array[0, 2:], 1.0)


def test_coefficients_come_from_the_initiator() -> None:
    graph = family("ring", 4)
    systems = [Acid().system(graph.chi_1 * k, graph.chi_2) for k in (1, 4)]
    a, b = (
        Worker(me, LINE, Acid(), Never(), np.full((2, 3), float(me)), clock=UniformClock())
        for me in (0, 1)
    )
    for each, system in zip((a, b), systems, strict=True):
        each.slots.system = system
        each.start(0.0)
    talk(a, b)
    b.exchanges.start(b.peers[0], 0.0)
    (request,) = said(b, m.Request)
    assert request.message.mix == tuple(systems[1].mix)  # type: ignore[attr-defined]
    a.receive(request, 0.0)
    talk(a, b)
    np.testing.assert_allclose(a.slots.plain()[:, 0], systems[1].mix)
    np.testing.assert_allclose(a.slots.plain() + b.slots.plain(), 1.0)
