"""Bandwidth: what leaves a worker keeps to its rate, and everything still works."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Gossip
from decent.schedule import Never, Poisson
from decent.testing import Cluster, Limits, Network, cluster, fault_scripts
from decent.topology import Link, family
from decent.worker import Packet
from decent.worker.budget import Budget
from tests.worker.common import at_rest, examples

CHUNK = 10  # values of 8 bytes
PAYLOAD = 8 * CHUNK


class Meter(Network):
    """Notes when payloads leave."""

    def arrivals(self, packet: Packet, now_s: float) -> list[float]:
        log = self.__dict__.setdefault("left", defaultdict(list))
        if packet.nbytes:
            log[packet.message.src].append((now_s, packet.nbytes))
        return super().arrivals(packet, now_s)

    def check(self, rate: float) -> None:
        """Over any span at most rate·t + burst + a payload."""
        most = Budget(rate).burst + PAYLOAD
        for events in self.__dict__.get("left", {}).values():
            lowest, total = math.inf, 0
            for time_s, nbytes in events:
                lowest = min(lowest, total - rate * time_s)
                total += nbytes
                assert total - rate * time_s - lowest <= most * (1 + 1e-9) + 1e-6

    def bytes(self, worker: int) -> int:
        return sum(nbytes for _, nbytes in self.__dict__["left"][worker])


def capped(
    n: int, rate: float, contacts: float, values: int = 40, name: str = "ring", **options: Any
) -> Cluster:
    graph = family(name, n, rate=contacts)
    network = options.pop("network", None) or Meter(graph, Link(0.05), seed=1)
    limits = Limits(chunk=CHUNK, bandwidth=rate, dead_s=1e9, start_s=1e9)
    return cluster(graph, Gossip(), Poisson(), values, network=network, limits=limits, **options)


@examples(12)
@given(
    n=st.integers(2, 5),
    rate=st.floats(2, 5).map(lambda e: 10**e),
    contacts=st.floats(0.05, 5),
    loss=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_over_any_span_no_more_leaves_than_the_rate_allows(
    n: int, rate: float, contacts: float, loss: float, seed: int, data: st.DataObject
) -> None:
    graph = family("ring", n, rate=contacts)
    network = Meter(graph, Link(0.05), seed, loss=loss)
    faults = data.draw(fault_scripts(n, 20.0))
    c = capped(n, rate, contacts, network=network, faults=faults, merge=False, seed=seed)
    before = c.total()
    c.run(30.0)
    network.check(rate)
    for worker in c.workers.values():
        worker.finished = True
    c.run(2_000.0, until=at_rest)
    assert at_rest(c)
    network.check(rate)
    np.testing.assert_allclose(c.total(), before, rtol=0, atol=1e-9)


def test_what_is_allowed_is_used_and_what_is_not_is_skipped() -> None:
    """Contacts ask for far more than the rate."""
    rate = 4000.0
    c = capped(5, rate, contacts=2.0, values=400, name="complete", merge=False)
    c.run(200.0)
    for me, worker in c.workers.items():
        sent = worker.context.stats.bytes_sent
        assert sent == c.network.bytes(me)  # type: ignore[attr-defined]
        assert 0.95 * rate * 200 < sent <= rate * 200 + Budget(rate).burst + PAYLOAD
        assert worker.context.stats.skipped["bandwidth"] > 0
        assert worker.context.stats.repeated < 0.05 * sent / PAYLOAD
        assert worker.context.stats.completed > 0.3 * sent / (8 * 400)


def test_a_generous_rate_changes_nothing() -> None:
    free, wide = (capped(4, rate, contacts=1.0, merge=False) for rate in (math.inf, 1e9))
    for each in (free, wide):
        each.run(50.0)
    for me, worker in free.workers.items():
        np.testing.assert_array_equal(worker.slots.array, wide.workers[me].slots.array)
        assert "bandwidth" not in wide.workers[me].context.stats.skipped


def test_a_merge_keeps_to_it_too_and_ends() -> None:
    rate = 500.0
    graph = family("ring", 5)
    network = Meter(graph, Link(0.01))
    c = cluster(
        graph, Gossip(), Never(), 400, network=network, steps=3, learner=lambda worker: None,
        limits=Limits(chunk=CHUNK, bandwidth=rate),
    )  # fmt: skip
    c.run(1000.0)
    assert c.finished()
    network.check(rate)
    for me in c.alive:
        np.testing.assert_allclose(
            c.merges[me].result, np.mean([w.slots.array[0] for w in c.workers.values()], axis=0)
        )


@pytest.mark.parametrize("rate", [math.inf, 100.0])
def test_the_bucket(rate: float) -> None:
    budget = Budget(rate)
    assert budget.open
    budget.spend(50)
    assert budget.open == (rate == math.inf)
    assert budget.next_s() == math.inf  # nobody waits
    budget.wait(7)
    budget.wait(7)
    assert list(budget.line) == [7]
    if rate < math.inf:
        assert budget.next_s() == pytest.approx(0.4)
        budget.refill(0.39)
        assert not budget.open
        budget.refill(0.41)
        assert budget.open
        budget.refill(100.0)
        budget.spend(11)
        assert not budget.open  # no more than a tenth of a second is saved up
