"""Checkpoints of all workers fit together: whatever befalls messages, whenever all are killed."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Acid, Array, Dadao, Gossip, System
from decent.schedule import Poisson, View, Window, stream
from decent.schedule.base import Agenda
from decent.testing import Cluster, Limits, Network, Pace, cluster, contacts, fault_scripts, graphs
from decent.topology import Link, family
from decent.worker import Span, StepClock, UniformClock, Worker, codecs, line, snapshot
from decent.worker.audit import audit

from .common import Scattered, at_rest, examples, talking, with_invariant
from .ledgers import Ledgers, as_written

STEPS = 14
TALK_S = 30.0
SETTLED_S = 500.0


def walk(seed: int, values: int) -> Any:
    """Steps that depend on the worker and their number alone, so that none can be lost unseen."""

    def step(worker: Worker) -> None:
        worker.slots.array[0] += stride(seed, worker.me, worker.context.clock.steps, values)

    return step


def stride(seed: int, me: int, step: int, values: int) -> Array:
    return stream(seed, "step", me, step).normal(size=values)


def quiet(c: Cluster) -> None:
    for worker in c.workers.values():
        worker.finished = True


def to_rest(c: Cluster) -> Cluster:
    c.at(max(TALK_S, c.now_s), lambda: quiet(c))
    c.run(SETTLED_S, until=lambda c: c.now_s > TALK_S and at_rest(c) and walked(c))
    assert at_rest(c)
    assert walked(c)
    return c


def walked(c: Cluster) -> bool:
    return all(worker.context.clock.steps == STEPS for worker in c.workers.values())


@examples(25)
@given(st.data(), talking(), st.sampled_from(["exact", "bf16", "topk"]))
def test_all_go_on_from_a_line_as_if_nothing_had_happened(
    data: st.DataObject, system: System, codec: str
) -> None:
    """Kill all at any time, perhaps twice: sums are kept to rounding, every exchange is ended at
    both ends, and the books balance with nothing settled by rule."""
    invariant = np.array(data.draw(st.lists(
        st.floats(0.2, 1), min_size=len(system.slots), max_size=len(system.slots)
    )))  # fmt: skip
    system, graph = with_invariant(system, invariant), data.draw(graphs(5))
    graph = graph.with_rates([min(rate, 2.0) for rate in graph.rates])
    seed, values = data.draw(st.integers(0, 1000)), data.draw(st.integers(1, 9))
    limits = Limits(
        chunk=data.draw(st.integers(1, 4)), window=data.draw(st.integers(1, 3)), dead_s=1e9,
        start_s=1e9,
    )  # fmt: skip
    ledgers: Ledgers = {}
    latency_s, jitter = data.draw(st.sampled_from([0.0, 0.3, 2.0])), data.draw(st.floats(0, 1.5))
    c = cluster(
        graph, Scattered(system), Poisson(), values, steps=STEPS, merge=False, seed=seed,
        network=Network(graph, Link(latency_s), seed, jitter=jitter), limits=limits,
        faults=data.draw(fault_scripts(graph.n, 12.0)), ledgers=ledgers,
        learner=walk(seed, values), codec=codecs.get(codec, share=0.5),
        checkpoint_every=data.draw(st.integers(1, 4)),
        paces=[Pace(data.draw(st.floats(0.3, 2)), 0.2) for _ in range(graph.n)],
        clock=data.draw(st.sampled_from([StepClock, UniformClock])),
    )  # fmt: skip
    before = invariant @ c.total()
    for at_s in sorted(data.draw(st.lists(st.floats(1, 20), min_size=1, max_size=2))):
        c.run(at_s)
        c.resume_all()
    to_rest(c)
    way = np.sum([stride(seed, me, k, values) for me in c.workers for k in range(STEPS)], axis=0)
    expected = before + float(invariant @ system.inverse[:, 0]) * way
    scale = 1 + max(np.abs(worker.slots.array).max() for worker in c.workers.values())
    np.testing.assert_allclose(invariant @ c.total(), expected, rtol=0, atol=1e-11 * scale)
    c.close()
    report = audit(as_written(ledgers))
    ends = [each for each in report.culprits if each.exchange]  # nearly singular drifts, apart
    assert ends == report.settled == report.unclosed == []


def busy(dynamics: Any, trace: list[dict[str, Any]], ledgers: Ledgers, **options: Any) -> Cluster:
    graph = family("ring", 4, rate=1.0)
    return cluster(
        graph, dynamics, Poisson(), 20, steps=40, learner=walk(3, 20), trace=trace, seed=3,
        network=Network(graph, Link(0.4), 3, jitter=0.7, loss=0.1), checkpoint_every=3,
        ledgers=ledgers, limits=Limits(chunk=4, window=2, dead_s=1e9), clock=StepClock,
        paces=[Pace(0.5 + 0.3 * me, 0.3) for me in range(4)], **options,
    )  # fmt: skip


def test_there_is_something_to_fit_together() -> None:
    """Exchanges are in flight across the line, mixed at one end, and are ended after it; workers
    are forced to take checkpoints, and messages wait for them."""
    trace: list[dict[str, Any]] = []
    c, held, half = busy(Acid(), trace, {}), 0, 0

    def watch(c: Cluster) -> bool:
        nonlocal held
        held += any(worker.cuts.held for worker in c.workers.values())
        return False

    c.run(16.0, until=watch)
    assert held == 0  # between two events nothing waits: virtual workers are always between steps
    steps = {me: c.workers[me].context.clock.steps for me in c.workers}
    found = c.resume_all()
    assert len(found) == 4
    behind = [steps[me] - c.workers[me].context.clock.steps for me in c.workers]
    assert min(behind) >= 0
    assert max(behind) > 0
    for worker in c.workers.values():
        for peer, exchange in worker.exchanges.open.items():
            other = c.workers[peer].peers[worker.me].answers
            half += any(other.seq == exchange.seq and k in other.replies for k in exchange.flying)
    assert half > 0
    every = {me: [tree["clock"]["steps"] for tree in c.saved[me]] for me in c.saved}
    gaps = [b - a for own in every.values() for a, b in pairwise(own)]
    assert min(gaps) < 3 <= max(gaps)
    assert c.run(500.0).finished()


def test_to_the_merge_with_every_dynamics() -> None:
    for dynamics in (Gossip(), Acid(), Dadao(1.0, 20.0)):
        ledgers: Ledgers = {}
        c = busy(dynamics, [], ledgers)
        for at_s in (11.0, 13.0, 22.0):
            c.run(at_s)
            assert len(c.resume_all()) == 4
        assert c.run(500.0).finished()
        c.close()
        report = audit(as_written(ledgers))
        assert report.balanced, report.culprits
        assert report.settled == report.unclosed == []
        assert report.steps == 4 * 40


def test_a_line_has_to_fit() -> None:
    """The audit finds what a resume from checkpoints that are no line would do."""
    ledgers: Ledgers = {}
    c = busy(Gossip(), [], ledgers)
    c.run(16.0)
    c.saved[1] = [*c.saved[1][:-4], c.saved[1][-4] | {"cut": c.saved[1][-1]["cut"], "since": 0}]
    assert len(c.resume_all()) == 4
    c.run(500.0)
    c.close()
    assert not audit(as_written(ledgers)).balanced


def test_messages_wait_for_a_checkpoint() -> None:
    """Where training does not come to the end of its step."""
    graph = family("line", 2, rate=1.0)
    c = cluster(graph, Gossip(), Poisson(), 4, checkpoint_every=5, merge=False)
    c.run(0.5)
    a, b = c.workers.values()
    a.checkpoint(c.now_s)
    a.exchanges.start(a.peers[1], c.now_s)
    before = b.slots.array.copy()
    requests = [packet for packet in a.outbox if type(packet.message).__name__ == "Request"]
    for packet in requests:
        assert packet.message.cut == 1
        assert packet.payload is not None
        b.receive(packet, c.now_s)
    assert len(b.cuts.held) == len(requests) == 1
    requests[0].payload[:] = 7  # its memory is somebody's
    assert not b.outbox
    tree = b.checkpoint(c.now_s)
    np.testing.assert_array_equal(tree["slots"]["array"], before)
    assert (tree["since"], tree["cut"]) == (0, 1)
    b.poll(c.now_s)
    [answer] = b.outbox
    assert type(answer.message).__name__ == "Change"
    np.testing.assert_allclose(b.slots.array[0], (before[0] + a.slots.array[0]) / 2)


def test_without_checkpoints_nothing_waits() -> None:
    graph = family("line", 2, rate=1.0)
    c = cluster(graph, Gossip(), Poisson(), 4, merge=False)
    c.workers[0].context.cut = 5
    c.run(30.0)
    assert c.workers[1].context.stats.answered > 5
    assert c.saved == {0: [], 1: []}


def test_lines() -> None:
    assert line({0: [Span(0, 1), Span(1, 2)], 1: [Span(0, 2)]}) == {0: Span(1, 2), 1: Span(0, 2)}
    assert line({0: [Span(1, 2), Span(2, 5)], 1: [Span(2, 3), Span(3, 4)]}) == {
        0: Span(2, 5), 1: Span(3, 4)
    }  # fmt: skip
    assert line({0: [Span(6, 7)], 1: [Span(4, 5)], 2: [Span(6, 9)]}) == {
        0: Span(6, 7), 2: Span(6, 9)
    }  # fmt: skip
    assert line({0: [], 1: []}) == {}


def test_a_snapshot_survives_files() -> None:
    """Through bytes and back, to the bit."""
    c = busy(Acid(), [], {}, codec=codecs.get("topk", share=0.3))
    c.run(20.0)
    for own in c.saved.values():
        tree, arrays = snapshot.split(own[-1])
        coded = msgspec.msgpack.encode(tree)
        kept = {name: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape) for name, a in
                arrays.items()}  # fmt: skip
        again = snapshot.joined(msgspec.msgpack.decode(coded, strict=False), kept)
        assert same(again, own[-1])


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_a_restored_worker_is_what_it_was() -> None:
    """A snapshot of what was restored is the same snapshot."""
    c = busy(Acid(), [], {})
    c.run(20.0)
    found = c.resume_all()
    assert found
    for me, worker in c.workers.items():
        again, kept = snapshot.taken(worker, c.saved[me][-1]["s"]), c.saved[me][-1]
        for name in ("clock", "meter", "slots", "agenda", "coder", "ledger", "pace", "cut"):
            assert same(again[name], kept[name]), name
        assert again["open"].keys() == kept["open"].keys()


@examples(40)
@given(st.integers(0, 99), st.floats(0, 60), st.booleans())
def test_a_schedule_goes_on_where_it_was(seed: int, at: float, window: bool) -> None:
    schedule = Window(0.2, 0.8) if window else Poisson()
    view = View.of(family("ring", 5), 1, seed)
    whole = contacts(schedule, view, 80.0, steps=80)
    first, made = Agenda(schedule, View.of(family("ring", 5), 1, seed)), []

    def on(agenda: Agenda, until: float) -> None:
        while agenda.next_time <= until:
            time = max(0.0, agenda.next_time)
            made.extend((time, peer) for peer in agenda.due(time, min(1.0, int(time) / 80)))

    on(first, at)
    second = Agenda(schedule, View.of(family("ring", 5), 1, seed))
    second.restore(first.state())
    on(second, 80.0)
    assert made == whole
    assert same(Agenda.state(second)["moments"].size > 0, bool(whole) or window)


def test_limits_of_what_waits() -> None:
    """More than may wait is dropped."""
    graph = family("line", 2, rate=1.0)
    c = cluster(graph, Gossip(), Poisson(), 4, checkpoint_every=5, merge=False)
    c.run(0.5)
    a, b = c.workers.values()
    a.checkpoint(c.now_s)
    a.exchanges.start(a.peers[1], c.now_s)
    [request] = [packet for packet in a.outbox if type(packet.message).__name__ == "Request"]
    for _ in range(100):
        b.receive(request, c.now_s)
    assert len(b.cuts.held) == 64
    assert replace(b.cuts).due_step <= b.context.clock.steps
