"""The modelled network: when messages arrive, and whether."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent.simulation.network import HEADER_BYTES
from decent.testing import Network
from decent.topology import Link, Topology, family
from decent.worker import Packet
from decent.worker import messages as m


def packet(src: int = 0, dst: int = 1, values: int = 0) -> Packet:
    payload = np.zeros(values, "f4") if values else None
    return Packet(m.Reply(src, dst, 0, 0, 0, 0, 0.0) if values else m.Beat(src, dst, 0), payload)


def linked(latency_s: float, bandwidth_bps: float | None = None, **options: Any) -> Network:
    link = Link(latency_s, bandwidth_bps)
    return Network(Topology.from_edges(3, [(0, 1), (1, 2)], links=[link, Link(9.0)]), **options)


def test_latency_is_one_way_and_the_links_own() -> None:
    network = linked(0.25)
    assert network.arrivals(packet(), 10.0) == [10.25]
    assert network.arrivals(packet(1, 0), 10.0) == [10.25]
    assert network.arrivals(packet(1, 2), 10.0) == [19.0]
    assert network.arrivals(packet(0, 2), 10.0) == [10.0]  # no edge: the default


def test_bandwidth_is_shared_by_what_queues_in_one_direction() -> None:
    network = linked(0.5, 8000.0)  # 1000 bytes/s
    takes_s = (400 + HEADER_BYTES) / 1000
    assert network.arrivals(packet(values=100), 0.0) == [pytest.approx(takes_s + 0.5)]
    assert network.arrivals(packet(values=100), 0.0) == [pytest.approx(2 * takes_s + 0.5)]
    assert network.arrivals(packet(1, 0, values=100), 0.0) == [pytest.approx(takes_s + 0.5)]
    assert network.arrivals(packet(values=100), 7.0) == [pytest.approx(7 + takes_s + 0.5)]
    assert network.bytes_carried == 4 * (400 + HEADER_BYTES)


def test_shares_of_loss_and_duplication() -> None:
    network = linked(1.0, loss=0.3, duplicate=0.2)
    counts = np.bincount([len(network.arrivals(packet(), 0.0)) for _ in range(4000)], minlength=3)
    expected = 4000 * np.array([0.3 * 0.8, 0.7 * 0.8 + 0.3 * 0.2, 0.7 * 0.2])
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_a_cut_link_carries_nothing_either_way() -> None:
    network = linked(0.0)
    network.cut.add(frozenset((0, 1)))
    assert network.arrivals(packet(), 0.0) == network.arrivals(packet(1, 0), 0.0) == []
    assert network.arrivals(packet(1, 2), 0.0) == [9.0]


def test_jitter_spreads_the_latency_and_depends_on_the_seed_alone() -> None:
    def latencies(seed: int) -> list[float]:
        network = linked(2.0, jitter=0.5, seed=seed)
        return [network.arrivals(packet(), 0.0)[0] for _ in range(1000)]

    logs = np.log(latencies(1)) - np.log(2.0)
    assert abs(logs.mean()) < 4 * 0.5 / np.sqrt(1000)
    assert abs(logs.std() - 0.5) < 4 * 0.5 / np.sqrt(2000)
    assert latencies(1) == latencies(1) != latencies(2)


def test_links_draw_independently_of_one_another() -> None:
    def after(first: int) -> list[float]:
        network = Network(family("line", 3), Link(1.0), jitter=0.5)
        for _ in range(first):
            network.arrivals(packet(1, 2), 0.0)
        return network.arrivals(packet(0, 1), 0.0)

    assert after(0) == after(5)
