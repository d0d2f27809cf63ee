"""Exchanges on a topology that changes with time: on the edges of the round, and no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decent.dynamics import Gossip
from decent.errors import TopologyError
from decent.learning.consensus import Standstill
from decent.simulation.ideal.changing import Changing, overall
from decent.simulation.ideal.engine import Engine
from decent.topology import varying


@pytest.mark.parametrize("cuts", [[20.0], [0.3, 1.0, 1.7, 9.2, 20.0]])
def test_exchanges_happen_on_the_edges_of_their_round(cuts: list[float]) -> None:
    matching = varying.random_matching(8, seed=3)
    source = Changing(matching, 2.0, period=2.0, replicas=5)
    for cut in cuts:
        events = source.until(cut)
        met = events.of(events.peer >= 0)
        assert len(met.time)
        for time, i, j in zip(*(column.tolist() for column in met), strict=True):
            pair = (min(i % 8, j % 8), max(i % 8, j % 8))
            assert i // 8 == j // 8
            assert pair in matching.edges(int(time / 2.0))


def test_every_worker_sends_as_much_in_every_round() -> None:
    source = Changing(varying.random_matching(8), 1.5, replicas=200, gradients=False)
    events = source.until(20.0)
    expected = 1.5 * 8 / 2 * 20.0 * 200
    assert abs(len(events.time) - expected) < 4 * np.sqrt(expected)


def test_gossip_on_matchings_that_change_agrees_on_the_mean() -> None:
    start = torch.randn(1, 16, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    source = Changing(varying.one_peer_exponential(16), 2.0, gradients=False)
    engine = Engine(Standstill(16, 3, torch.float64), Gossip().system(1, 1), source, start)
    engine.run(40.0)
    assert torch.allclose(engine.points(), start[0].mean(0).expand(16, 3), atol=1e-4)


def test_rounds_that_never_connect_all_are_refused() -> None:
    apart = varying.generated(4, lambda k: [(0, 1)] if k % 2 else [(2, 3)])
    with pytest.raises(TopologyError, match="cannot be reached"):
        overall(apart, 1.0, 10)
