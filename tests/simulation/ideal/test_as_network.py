"""Where links take no time, the ideal engine and the network's workers come to the same, whatever
the method, the schedule, the pace and the graph: to rounding, event by event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from decent.dynamics import Acid, Dadao, Dynamics, Gossip
from decent.schedule import Contact, Never, OnePeer, Periodic, Poisson, View, Window
from decent.simulation.ideal.events import Scheduled
from decent.testing import Pace, cluster
from decent.topology import Topology, family
from decent.worker import Worker

from .common import Array, Problem, methods, topologies

PACES = {
    "steady": Pace(1.01),
    "jittery": Pace(0.9, 0.3),
    "poisson": Pace(1.2, poisson=True),
}
SEED = 3


def alternating(view: View) -> Iterator[Contact]:
    """Much like OnePeer: the lower end of each pair starts, both know when."""
    peers, turn = sorted(view.rates, key=lambda peer: view.worker ^ peer), 0
    while True:
        peer = peers[turn % len(peers)]
        yield 0.35 + 0.6 * turn, peer if view.worker < peer else None
        turn += 1


def learner(problem: Problem) -> Callable[[Worker], None]:
    """A gradient step as a worker's training takes it: row 0 moves, and nothing else."""

    def learn(worker: Worker) -> None:
        relative, rows = worker.slots.system.relative, worker.slots.array
        gradient = problem.gradient(worker.me, rows[0])
        rows[0] += relative.kick[0] * (gradient + relative.residual @ rows)

    return learn


def in_the_network(
    problem: Problem, topology: Topology, method: Dynamics, schedule: Any, pace: Pace, until: float
) -> tuple[Array, list[list[int]]]:
    """[S, n, d] at `until`, and what each worker did: steps, exchanges started and answered."""
    c = cluster(
        topology, method, schedule, initial=problem.start, steps=1000, learner=learner(problem),
        paces=[pace] * topology.n, follow=False, seed=SEED,
    )  # fmt: skip
    c.run(until_s=until)
    workers = list(c.workers.values())
    for worker in workers:
        worker.refresh(until)
    stats = [each.context.stats for each in workers]
    counts = [
        [each.context.clock.steps for each in workers],
        [each.started for each in stats],
        [round(each.answered) for each in stats],
    ]
    return np.stack([worker.slots.plain() for worker in workers], 1), counts


def compare(
    topology: Topology, method: Dynamics, schedule: Any, pace: Pace, until: float, size: int = 5
) -> None:
    problem = Problem.drawn(topology.n, size)
    expected, counts = in_the_network(problem, topology, method, schedule, pace, until)
    source = Scheduled(
        topology, schedule, seed=SEED, steps=1000, paces=[pace] * topology.n,
    )  # fmt: skip
    engine = problem.engine(method, topology, source)
    engine.run(until)
    assert engine.tally.tolist() == counts
    scale = max(1.0, float(np.abs(expected).max()))
    assert_allclose(engine.state(until), expected, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("pace", PACES)
@pytest.mark.parametrize("method", [Gossip(0.1), Acid(0.1), Dadao(0.5, 4.0)])
def test_every_method_and_pace(method: Dynamics, pace: str) -> None:
    topology = family("ring", 6).with_models_per_worker(1.0)
    compare(topology, method, Poisson(), PACES[pace], 25.0)


SCHEDULES = [Poisson(), Periodic(), Never(), Window(0.01, 0.03, keep_budget=False)]
PAIRING = [OnePeer(0.73), alternating]  # on a graph where everyone's turns agree


@settings(max_examples=30)
@given(
    topologies(), methods(), st.sampled_from([*SCHEDULES, *PAIRING]), st.sampled_from(list(PACES))
)
def test_any_method_on_any_graph(
    topology: Topology, method: Dynamics, schedule: Any, pace: str
) -> None:
    assume(schedule not in PAIRING or topology.family in ("ring", "complete"))
    compare(topology, method, schedule, PACES[pace], 8.0)
