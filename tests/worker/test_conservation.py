"""An exchange leaves Σ_i state_i as it was: for any system, whatever befalls its messages."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Array, Gossip, System
from decent.schedule import Poisson, stream
from decent.testing import Cluster, Fault, Limits, Network, cluster, fault_scripts, graphs
from decent.topology import Link, Topology, family
from decent.worker import Worker

from .common import Scattered, at_rest, examples, remembered, talking, with_invariant

TALK_S = 12.0
SETTLED_S = 120.0


@dataclass
class Case:
    """A graph, links, limits and faults."""

    topology: Topology
    network: Network
    limits: Limits
    faults: list[Fault]
    values: int
    seed: int


@st.composite
def cases(draw: st.DrawFn, system: System) -> Case:
    graph = draw(graphs(5))
    graph = graph.with_rates([min(rate, 2.0) for rate in graph.rates])
    seed = draw(st.integers(0, 1000))
    network = Network(
        graph, Link(draw(st.sampled_from([0.0, 0.3, 2.0]))), seed, jitter=draw(st.floats(0, 1.5))
    )
    limits = Limits(
        chunk=draw(st.integers(1, 4)), window=draw(st.integers(1, 3)), dead_s=1e9, start_s=1e9
    )
    faults = draw(fault_scripts(graph.n, TALK_S))
    return Case(graph, network, limits, faults, draw(st.integers(1, 9)), seed)


def quiet(c: Cluster) -> None:
    """Nobody starts anything more."""
    for worker in c.workers.values():
        worker.finished = True


def run_to_rest(c: Cluster, window: int) -> None:
    def check(c: Cluster) -> bool:
        assert remembered(c) <= window
        return c.now_s > TALK_S and at_rest(c)

    c.at(TALK_S, lambda: quiet(c))
    c.run(SETTLED_S, until=check)
    assert at_rest(c)


def change_constants(c: Cluster, system: System) -> None:
    """Every worker has momentum and mixing of its own, as when each follows its own rates."""
    for me, worker in c.workers.items():
        pace = 1 / (1 + me)
        worker.slots.system = replace(system, flow=pace * system.flow, mix=pace * system.mix)


def sums(c: Cluster, combinations: Array) -> Array:
    return combinations @ c.total()


@examples(60)
@given(st.data(), talking(), st.booleans(), st.booleans(), st.booleans())
def test_the_sum_is_kept(
    data: st.DataObject, system: System, drift: bool, steps: bool, near: bool
) -> None:
    size = len(system.slots)
    if drift:
        invariant = np.array(data.draw(st.lists(st.floats(0.2, 1), min_size=size, max_size=size)))
        system, combinations = with_invariant(system, invariant), invariant[np.newaxis]
    else:
        system, combinations = replace(system, flow=0 * system.flow), np.eye(size)
    case = data.draw(cases(system))
    stepped = np.zeros((size, case.values))

    def learner(worker: Worker) -> None:
        step = stream(case.seed, "step", worker.me, worker.context.clock.steps).normal(
            size=case.values
        )
        worker.slots.array[0] += step
        stepped[:] += np.outer(np.linalg.inv(system.basis)[:, 0], step)

    c = cluster(
        case.topology, Scattered(system), Poisson(), case.values, steps=8, merge=False,
        network=case.network, limits=case.limits, faults=case.faults, seed=case.seed,
        learner=learner if steps else None, near=near,
    )  # fmt: skip
    before = sums(c, combinations)
    c.at(TALK_S / 2, lambda: change_constants(c, system))
    run_to_rest(c, case.limits.window)
    expected = before + combinations @ stepped
    size_ = max(np.abs(worker.slots.array).max() for worker in c.workers.values())
    scale = 1 + size_ + np.abs(stepped).max()
    np.testing.assert_allclose(sums(c, combinations), expected, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("near", [False, True])
def test_something_is_exchanged_in_such_runs(near: bool) -> None:
    graph = family("ring", 4)
    network = Network(graph, Link(0.3))
    c = cluster(graph, Gossip(), Poisson(), 9, network=network, merge=False, near=near)
    c.run(TALK_S)
    assert sum(worker.context.stats.completed for worker in c.workers.values()) > 10
