"""A worker under fire, in virtual time: strangers change nothing at all; one that holds a key of
the run and lies harms nobody but those whom it speaks to, and them neither by an error nor in
memory."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import asdict
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from decent.dynamics import Acid, Gossip
from decent.errors import Declared, PeerRefused
from decent.schedule import Poisson, stream
from decent.testing import Cluster, Limits, Network, cluster
from decent.topology import Link, family
from decent.worker import Packet, UniformClock, Worker, codecs
from decent.worker import messages as m
from decent.worker.audit import audit

from . import mutations
from .hostile import EXCHANGES, KINDS, WAVES, Liar
from .mutations import Tally

COMPLETE = family("complete", 5, rate=1.0)
RING = family("ring", 5, rate=1.0)
LIMITS = Limits(chunk=8, window=2, start_s=30.0)
VALUES = 40
LIAR = 2
UNTIL_S = 60.0
CODECS = [codecs.get("exact"), codecs.get("int8", block=4), codecs.get("topk", share=0.3)]
GREETING = {"answer": True, "asked_s": 0.0, "to_epoch": 0, "epoch": 1}
SHARE = mutations.frames_wanted() / mutations.CI


def packets(count: int) -> int:
    """As many more as more frames are asked for."""
    return round(SHARE * count)


class Forgetful(list[Any]):
    """A trace that is not kept."""

    def append(self, event: Any) -> None:
        pass


def dither(worker: Worker) -> None:
    """A local step."""
    noise = stream(7, "step", worker.me, worker.context.clock.steps)
    worker.slots.array[0] += 0.1 * noise.normal(size=worker.slots.values)


def run(topology: Any, **options: Any) -> Cluster:
    return cluster(
        topology, options.pop("dynamics", Gossip()), Poisson(), VALUES, limits=LIMITS, seed=1,
        network=Network(topology, Link(0.02), 1), **options,
    )  # fmt: skip


def bounded(worker: Worker) -> None:
    """What it keeps of others stays within what is said to be kept."""
    n, chunks = worker.topology.n, worker.slots.chunks
    merging, exchanges = worker.merging, worker.exchanges
    assert len(exchanges.open) <= worker.context.limits.max_open
    coder = getattr(exchanges, "mixing", exchanges).coder
    assert len(coder._agreed) <= len(worker.peers) * chunks
    for peer in worker.peers.values():
        assert len(peer.answers.replies) <= worker.context.limits.window
        assert len(peer.answers.answered) <= chunks
    assert len(merging._early) <= n
    assert merging.kin.keys() <= set(range(n))
    assert all(each.dead <= set(range(n)) for each in merging.reductions.values())
    assert len(worker.context.stats.skipped) <= 8


# strangers


def strange(random: Random, c: Cluster, me: int) -> Packet:
    """From nobody in the run, from oneself, from one who is no neighbour and has met nobody; or
    from a neighbour, to another."""
    victim = c.workers[me]
    others = sorted(set(range(5)) - {me, *victim.peers})
    how = random.randrange(4)
    src = [random.choice([5, 99, 2**53 - 1]), me, random.choice(others), min(victim.peers)][how]
    kinds = [kind for kind in KINDS if kind not in WAVES] if how == 2 else KINDS
    packet = Liar(src, victim, random).packet(*kinds)
    return packet if how < 3 else packet._replace(message=misdirected(packet.message, random, me))


def misdirected(message: m.Message, random: Random, me: int) -> m.Message:
    """The same to another worker, or to nobody. A refusal is for whoever gets it."""
    dst = random.choice([-1, (me + 1) % 5, 77])
    changed = {"src": 6} if isinstance(message, m.Refuse) else {"dst": dst}
    return msgspec.structs.replace(message, **changed)


def outcome(strangers: int) -> tuple[list[Any], list[Any], Cluster, Tally]:
    """A run that a number of packets from strangers come into; what is left of it."""
    trace: list[dict[str, Any]] = []
    c = run(RING, steps=40, learner=dither, trace=trace)
    random, tally = Random(mutations.seed()), Tally("packets from strangers")

    def come(me: int) -> None:
        packet = strange(random, c, me)
        tally.count(f"no effect: {type(packet.message).__name__}")
        c.workers[me].receive(packet, c.now_s)
        assert c.workers[me].context.fatal is None
        for answer in c.workers[me].outbox:
            assert isinstance(answer.message, m.Refuse | m.Hello), answer.message
        c.workers[me].outbox.clear()

    for number in range(strangers):
        c.at(UNTIL_S * number / strangers, lambda me=number % 5: come(me))  # type: ignore[misc]
    c.run(UNTIL_S)
    kept = [event for event in trace if event["event"] != "refused"]
    state = [worker.slots.array.tobytes() for worker in c.workers.values()]
    return kept, state, c, tally


def test_strangers_change_nothing_at_all() -> None:
    trace, state, c, _ = outcome(0)
    same_trace, same_state, visited, tally = outcome(packets(20_000))
    assert c.finished()
    assert visited.finished()
    assert same_state == state
    assert same_trace == trace
    for one, other in zip(c.workers.values(), visited.workers.values(), strict=True):
        ours, theirs = one.context.stats.as_dict(), other.context.stats.as_dict()
        changed = {name for name in ours if ours[name] != theirs[name]}
        assert changed <= {"refused", "bytes_received"}
        bounded(other)
    tally.show()


# liars


def lies(c: Cluster, count: int, until_s: float, tally: Tally, tame: bool, kinds: Any) -> None:
    """Packets in the name of worker LIAR, beside its own, to all the others, from the time when
    they have met."""
    random = Random(mutations.seed())
    liars = {me: Liar(LIAR, c.workers[me], random, tame) for me in c.workers if me != LIAR}
    c.workers[LIAR].context.fail = lambda error: None  # type: ignore[method-assign]

    def come(me: int) -> None:
        packet = liars[me].packet(*kinds)
        tally.count(type(packet.message).__name__)
        c.at(c.now_s, lambda: c._deliver(packet, c._life))
        bounded(c.workers[me])

    for number in range(count):
        me = sorted(liars)[number % len(liars)]
        c.at(1 + (until_s - 1) * number / count, lambda me=me: come(me))  # type: ignore[misc]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("dynamics", [Gossip(), Acid()], ids=lambda dynamics: dynamics.name)
def test_honest_workers_go_on_beside_a_liar_and_their_sum_is_kept(
    dynamics: Any, codec: Any
) -> None:
    tally = Tally(f"lies, {dynamics.name}, {codec.name}")
    ledgers: dict[int, list[dict[str, Any]]] = {}
    c = run(
        COMPLETE, dynamics=dynamics, codec=codec, ledgers=ledgers, merge=False,
        trace=Forgetful(), learner=dither, steps=60,
    )  # fmt: skip
    kinds = [kind for kind in KINDS if kind not in (m.Gone, *WAVES)] + [*EXCHANGES] * 3
    lies(c, packets(2_000), UNTIL_S, tally, True, kinds)
    c.at(UNTIL_S, lambda: [setattr(worker, "finished", True) for worker in c.workers.values()])
    c.run(4 * UNTIL_S)
    assert c.down == {}
    c.close()
    honest = {me: lines for me, lines in ledgers.items() if me != LIAR}
    report = audit(honest)
    assert [culprit.what for culprit in report.culprits] == []
    between = {edge.workers: edge.exchanges for edge in report.edges}
    for edge in [(0, 1), (0, 3), (0, 4), (1, 3), (1, 4), (3, 4)]:
        assert between[edge] > 5
    for me in honest:
        assert not set(c.workers[me].exchanges.open) - {LIAR}
    tally.show()


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_a_liar_causes_no_error_whatever_it_sends(codec: Any) -> None:
    """Also when all stop for the merge, and the liar has its word in it."""
    tally = Tally(f"wild lies, {codec.name}")
    c = run(COMPLETE, codec=codec, trace=Forgetful(), learner=dither, steps=30)
    lies(c, packets(4_000), UNTIL_S, tally, False, KINDS)
    c.at(2.0, lambda: c.kill(LIAR))  # what it says from then on are the lies
    c.run(2 * UNTIL_S)
    assert {why for me, why in c.down.items() if me != LIAR} == set()
    assert all(np.isfinite(c.workers[me].slots.array).all() for me in range(5) if me != LIAR)
    tally.show()


@pytest.mark.parametrize("stage", ["not met", "met", "merging"])
def test_memory_does_not_grow(stage: str) -> None:
    """One worker, to whom everybody lies."""
    random, tally = Random(mutations.seed()), Tally(f"lies whose memory was watched, {stage}")
    worker = Worker(
        1, COMPLETE, Gossip(), Poisson(), np.zeros((1, VALUES), "f4"), clock=UniformClock(),
        limits=LIMITS, codec=codecs.get("topk", share=0.3),
    )  # fmt: skip
    liars = [Liar(src, worker, random) for src in (0, 2, 3, 4)]
    worker.context.fail = lambda error: errors.add(type(error))  # type: ignore[method-assign]
    errors: set[type[Exception]] = set()
    worker.start(0.0)
    now_s = 0.0
    if stage != "not met":
        for liar in liars:
            worker.receive(liar.sign(m.Hello, **GREETING, **asdict(worker.identity)), 0.0)
    if stage == "merging":
        worker.reduce(0, worker.slots.array[0], 1.0, now_s)

    def fire(count: int) -> None:
        nonlocal now_s
        for _ in range(count):
            now_s += 0.001
            packet = random.choice(liars).packet()
            tally.count(type(packet.message).__name__)
            worker.receive(packet, now_s)
            worker.poll(now_s)
            worker.outbox.clear()
        bounded(worker)
        gc.collect()

    tracemalloc.start()
    try:
        fire(packets(2_000))
        before = tracemalloc.get_traced_memory()[0]
        fire(packets(4_000))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    tally.show()
    print(f"  {grown:+,} bytes; would have stopped it: {sorted(e.__name__ for e in errors)}")
    assert grown < 300_000  # a wave's `dead` of 5,000 for each liar comes and goes
    assert errors <= {PeerRefused, Declared}
