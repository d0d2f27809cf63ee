"""The window of chunks in flight fills a link and not much more, whatever the link."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Gossip
from decent.schedule import Never
from decent.simulation.network import HEADER_BYTES
from decent.testing import Cluster, Limits, Network, cluster
from decent.topology import Link, family
from decent.worker.window import GAIN, MORE, Window
from tests.worker.common import examples

LINE = family("line", 2)
CHUNK = 32  # values of 8 bytes
MESSAGE = 8 * CHUNK + HEADER_BYTES
LIMITS = Limits(chunk=CHUNK)


def pair(link: Link, chunks: int, limits: Limits = LIMITS, jitter: float = 0.0) -> Cluster:
    network = Network(LINE, link, seed=1, jitter=jitter)
    c = cluster(
        LINE, Gossip(), Never(), chunks * CHUNK, network=network, limits=limits, merge=False
    )
    c.run(until=lambda c: all(peer.met for w in c.workers.values() for peer in w.peers.values()))
    return c


def exchange(c: Cluster) -> tuple[float, int]:
    """One exchange from worker 0 to its end: seconds for a chunk over its second half, and the most
    chunks in flight there."""
    initiator = c.workers[0]
    peer, count = initiator.peers[1], initiator.slots.chunks
    initiator.exchanges.start(peer, c.now_s)
    c.at(c.now_s, lambda: c._after(initiator))
    begin_s, most = 0.0, 0

    def done(c: Cluster) -> bool:
        nonlocal begin_s, most
        current = initiator.exchanges.open.get(1)
        if current is not None and current.landed <= count // 2:
            begin_s = c.now_s
        elif current is not None:
            most = max(most, len(current.flying))
        return current is None

    c.run(c.now_s + 10_000, until=done)
    return (c.now_s - begin_s) / (count - count // 2), most


def on_the_way(link: Link) -> float:
    """Chunks that fill the link: bandwidth × delay, and those being sent, each way."""
    assert link.bandwidth_bps is not None
    return 2 + 2 * link.latency_s / (8 * MESSAGE / link.bandwidth_bps)


@examples(10)
@given(
    chunk_s=st.floats(-4, 0).map(lambda e: 10**e),
    delay=st.floats(0, 25),
    jitter=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_it_finds_what_the_link_carries(chunk_s: float, delay: float, jitter: float) -> None:
    """Links where a chunk takes from 0.1 ms to 1 s, and up to 25 times that on its way."""
    link = Link(min(5.0, delay * chunk_s), 8 * MESSAGE / chunk_s)
    c = pair(link, 500, jitter=jitter)
    exchange(c)
    took_s, most = exchange(c)
    assert took_s <= chunk_s / (0.9 if jitter < 0.1 else 0.8)
    assert most <= GAIN * on_the_way(link) * (1 + 2 * jitter) + MORE + 2
    assert c.workers[0].context.stats.repeated <= 1000 * jitter / 20


@given(
    chunk_s=st.floats(-4, 0).map(lambda e: 10**e), delay=st.floats(0, 1000), most=st.integers(1, 64)
)
@examples(6)
def test_it_stays_within_its_limits(chunk_s: float, delay: float, most: int) -> None:
    c = pair(
        Link(min(5.0, delay * chunk_s), 8 * MESSAGE / chunk_s),
        100,
        Limits(chunk=CHUNK, window=most),
    )
    kept: list[int] = []
    c.workers[1].context.record = lambda _: kept.append(len(c.workers[1].peers[0].answers.replies))
    _, flying = exchange(c)
    assert flying <= most
    assert max(kept) <= most


def test_without_bandwidth_it_opens_to_its_limit_and_not_beyond() -> None:
    c = pair(Link(0.05), 2000)
    _, most = exchange(c)
    assert most == LIMITS.window


def test_the_next_exchange_begins_where_the_last_one_ended_by_half() -> None:
    window = Window(size=20.0)
    window.begin()
    assert window.open(0, LIMITS) == 10
    assert window.open(7, LIMITS) == 17
    assert window.open(99, LIMITS) == 20


def test_a_chunk_that_was_held_up_now_and_then_costs_little() -> None:
    link = Link(0.04, 8 * MESSAGE / 0.02)
    steady = on_the_way(link)
    window = Window(size=steady)
    for k in range(400):
        held_s = 0.2 if k % 10 == 0 else 0.0
        took_s = 0.12 * max(1.0, window.size / steady) + held_s
        window.land(round(window.size), True, took_s, 0.0, LIMITS)
    assert window.size > 0.95 * steady


def test_a_way_that_grew_longer_is_learnt_by_the_next_exchange_but_one() -> None:
    link = Link(0.01, 8 * MESSAGE / 0.01)
    c = pair(link, 300)
    exchange(c)
    c.network.default = longer = Link(0.1, link.bandwidth_bps)
    for _ in range(2):
        exchange(c)
    took_s, most = exchange(c)
    assert took_s <= 0.01 / 0.9
    assert most >= on_the_way(longer)


@pytest.mark.parametrize("latency_s", [0.0, 0.02])
def test_what_is_exchanged_does_not_depend_on_it(latency_s: float) -> None:
    c = pair(Link(latency_s, 1e6), 50)
    before = c.total()
    exchange(c)
    np.testing.assert_allclose(c.total(), before, rtol=1e-13)
    first, second = (worker.slots.array for worker in c.workers.values())
    np.testing.assert_allclose(first, second, rtol=1e-13)
