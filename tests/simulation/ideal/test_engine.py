"""The engine does to workers what `System` says, in whatever batches, tiles and windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from decent.dynamics import Acid, Dadao, Dynamics, Gossip
from decent.errors import ModelError, RuntimeFault
from decent.learning.consensus import Standstill
from decent.learning.local import local_optimizer
from decent.schedule import Periodic, Poisson
from decent.simulation.ideal import engine as engines
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Events, Recorded, Scheduled, Superposed
from decent.simulation.ideal.run import initial_state
from decent.testing import Pace
from decent.topology import Topology, family

from .common import Array, Problem, methods, plainly, records, topologies

RING = family("ring", 6).with_models_per_worker(1.0)
SIZES = [1, 3, 80]  # vectors short and long are held in different coordinates
METHODS = [Gossip(0.1), Acid(0.1), Dadao(0.5, 4.0)]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=40)
@given(method=methods(probes=True), drawn=st.data())
def test_events_do_what_the_system_says(size: int, method: Dynamics, drawn: st.DataObject) -> None:
    n, until = 4, 30.0
    problem, system = Problem.drawn(n, size), method.system(2.0, 0.8)
    events, patient = drawn.draw(records(n)), drawn.draw(st.booleans())
    state = problem.state(method)
    expected, largest = plainly(problem, system, events, state, until)
    engine = Engine(problem.objective, system, Recorded(n, *events), state, patient=patient)
    engine.run(np.inf)
    assert_allclose(engine.state(until), expected, rtol=0, atol=1e-9 * largest)
    assert_allclose(engine.points(until), expected[0], rtol=0, atol=1e-9 * largest)


@given(methods(), topologies(), st.integers(0, 9), st.sampled_from([3, 80]))
@settings(max_examples=30)
def test_exchanges_change_no_sum(
    method: Dynamics, topology: Topology, seed: int, size: int
) -> None:
    """Σ_i state_i at a common time drifts as the state of one worker does, whoever met whom."""
    rng, system = np.random.default_rng(seed), method.system(topology.chi_1, topology.chi_2)
    start = torch.from_numpy(rng.normal(size=(len(system.slots), topology.n, size)))
    source = Scheduled(topology, Poisson(), seed=seed, gradients=False)
    engine = Engine(Standstill(topology.n, size, torch.float64), system, source, start)
    for time in (3.0, 8.0):
        engine.run(time)
        exact = system.propagator(time) @ start.sum(1).numpy()
        state = engine.state(time)
        scale = max(1.0, float(state.abs().max()), float(np.abs(exact).max()))
        assert_allclose(state.sum(1), exact, rtol=0, atol=1e-10 * scale)
    assert engine.exchanges > 0
    assert engine.gradients == 0


def finished(
    method: Dynamics, size: int = 3, until: float = 20.0, patient: bool | None = None
) -> Array:
    problem, pace = Problem.drawn(RING.n, size), Pace(0.9, 0.3)
    source = Scheduled(RING, Poisson(), seed=1, paces=[pace] * RING.n)
    engine = problem.engine(method, RING, source, patient)
    engine.run(until)
    return engine.state(until).numpy()


@each_method
@pytest.mark.parametrize("size", [3, 80])
@pytest.mark.parametrize("patient", [True, False])
def test_neither_windows_nor_tiles_matter(
    method: Dynamics, size: int, patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = finished(method, size)
    assert_allclose(finished(method, size, patient=patient), plain, rtol=0, atol=1e-11)
    monkeypatch.setattr(engines, "ROWS", 5)
    for window in (1, 9):
        monkeypatch.setattr(engines, "WINDOW", (window, window))
        found = finished(method, size, patient=patient)
        assert_allclose(found, plain, rtol=0, atol=1e-11)
    for tile in (1, 3 * 8 * size * len(plain)):
        monkeypatch.setattr(engines, "TILE_BYTES", tile)
        found = finished(method, size, patient=patient)
        assert_allclose(found, plain, rtol=0, atol=1e-11)


@each_method
def test_stops_in_between_do_not_matter(method: Dynamics) -> None:
    """A run that is looked at comes to the same, and what it is looked at is not changed."""
    problem, paces = Problem.drawn(RING.n), [Pace()] * RING.n
    source = Scheduled(RING, Periodic(), seed=1, paces=paces)
    engine = problem.engine(method, RING, source)
    seen = []
    for time in (0.0, 0.5, 3.0, 3.0, 11.5, 20.0):
        engine.run(time)
        seen.append((engine.state(time), engine.points(time).clone()))
        assert engine.time == time
        assert_allclose(engine.state(time), seen[-1][0], rtol=0, atol=0)
        assert_allclose(seen[-1][0][0], seen[-1][1], rtol=0, atol=1e-12)
        assert_allclose(engine.points(), seen[-1][1], rtol=0, atol=0)
    once = problem.engine(method, RING, Scheduled(RING, Periodic(), seed=1, paces=paces))
    once.run(20.0)
    assert_allclose(once.state(20.0), seen[-1][0], rtol=0, atol=1e-11)
    assert_allclose(seen[0][0], problem.state(method), rtol=0, atol=1e-12)


@each_method
def test_replicas_run_together_or_alone(method: Dynamics) -> None:
    n, replicas, until = RING.n, 3, 15.0
    problem, paces = Problem.drawn(n, replicas=replicas), [Pace(poisson=True)] * n

    def run(source: Scheduled, start: Array) -> torch.Tensor:
        state = initial_state(method, torch.from_numpy(start))
        system = method.system(RING.chi_1, RING.chi_2)
        engine = Engine(problem.objective, system, source, state)
        engine.run(until)
        assert (engine.tally.reshape(3, -1, n).sum(2) > 0).all()
        return engine.state(until)

    together = Scheduled(RING, Poisson(), seed=4, paces=paces, replicas=replicas)
    found = run(together, problem.start)
    for r in range(replicas):
        one = slice(r * n, (r + 1) * n)
        alone = Scheduled(RING, Poisson(), seed=4 + r, paces=paces)
        assert_allclose(found[:, one], run(alone, problem.start[one]), rtol=0, atol=1e-11)


def test_counts_are_the_events() -> None:
    n, until = RING.n, 40.0
    paces = [Pace(poisson=True)] * n
    engine = Problem.drawn(n).engine(Acid(0.1), RING, Scheduled(RING, Poisson(), paces=paces))
    engine.run(until)
    time, worker, peer = Scheduled(RING, Poisson(), paces=paces).until(until)
    met = peer >= 0
    expected = [worker[~met], worker[met], peer[met]]
    assert engine.tally.tolist() == [np.bincount(who, minlength=n).tolist() for who in expected]
    assert engine.gradients == np.count_nonzero(~met)
    assert engine.exchanges == np.count_nonzero(met)
    for i in range(n):
        assert engine.last[i] == time[(worker == i) | (peer == i)].max()


@pytest.mark.parametrize("method", [Gossip(0.1), Acid(0.1)], ids=lambda method: method.name)
def test_any_optimizer_moves_the_parameters(method: Dynamics) -> None:
    """With momentum, its velocity stays at the worker: as torch.optim has it, worker by worker."""
    n, until = 4, 30.0
    problem, system = Problem.drawn(n), method.system(2.0, 0.8)
    time, worker = np.sort(np.random.default_rng(0).uniform(0, until, 40)), np.arange(40) % n
    events = Events(time, worker, np.where(np.arange(40) % 5 == 3, (worker + 2) % n, -1))
    rows = [torch.nn.Parameter(torch.from_numpy(row.copy())) for row in problem.start]
    rules = [torch.optim.SGD([row], lr=0.05, momentum=0.8, nesterov=True) for row in rows]
    state = problem.state(method)
    rule = local_optimizer(rules[0], n, state[0])
    engine = Engine(problem.objective, system, Recorded(n, *events), state, optimizer=rule)
    engine.run(np.inf)
    own, clock = [row.numpy() for row in state.transpose(0, 1).clone()], np.zeros(n)
    for when, i, j in zip(*(column.tolist() for column in events), strict=True):
        for end in (i, j) if j >= 0 else (i,):
            system.drift(own[end], when - clock[end])
            clock[end] = when
        if j >= 0:
            difference = np.outer(system.mix, system.message @ (own[i] - own[j]))
            own[i] -= difference
            own[j] += difference
        else:
            rows[i].data.copy_(torch.from_numpy(own[i][0]))
            rows[i].grad = torch.from_numpy(problem.gradient(i, own[i][0]))
            rules[i].step()
            own[i] += np.outer(system.kick / system.kick[0], rows[i].detach().numpy() - own[i][0])
    assert_allclose(engine.state(), np.stack(own, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [2, 80])
def test_what_is_given_stays_as_it_is(size: int) -> None:
    for n, method in ((6, Gossip(0.1)), (1, Acid(0.1)), (6, Acid(0.1))):
        graph = family("ring", n)
        problem = Problem.drawn(n, size)
        state = problem.state(method)
        before, system = state.clone(), method.system(graph.chi_1, graph.chi_2)
        engine = Engine(problem.objective, system, Superposed(graph, 1), state)
        engine.run(5.0)
        assert torch.equal(state, before)
        assert not torch.equal(engine.state(), before)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"state": torch.zeros(2, 5, 3)}, r"\(2, 5, 3\): expected \(2, 6, 3\): slots, workers, d"),
        ({"state": torch.zeros(1, 6, 3)}, r"\(1, 6, 3\)"),
        ({"state": torch.zeros(2, 6, 4)}, r"\(2, 6, 4\)"),
        ({"source": Superposed(family("ring", 8), 1)}, r"expected \(2, 8, 3\)"),
        ({"objective": Problem.drawn(6, 4).objective}, r"expected \(2, 6, 4\)"),
        ({"objective": Problem.drawn(4, 3).objective}, "4 workers.*6"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict[str, Any], complaint: str) -> None:
    fitting = {
        "objective": Problem.drawn(6, 3).objective,
        "system": Acid().system(2.0, 0.8),
        "source": Superposed(RING, 1),
        "state": torch.zeros(2, 6, 3, dtype=torch.float64),
    }
    Engine(**fitting)
    with pytest.raises(ModelError, match=complaint):
        Engine(**{**fitting, **change})


@pytest.mark.parametrize("size", [2, 80])
def test_divergence_names_the_worker_and_the_time(size: int) -> None:
    """Worker 2 alone starts so far away that its third gradient is not a number any more."""
    problem = Problem.drawn(4, size)
    problem.start[2] = 1e200
    time = np.array([0.5, 1.0, 1.5, 2.25, 2.5, 3.75])
    events = Recorded(4, time, np.array([2, 0, 2, 2, 1, 2]), np.full(6, -1))
    engine = problem.engine(Gossip(1e60), RING, events)
    with pytest.raises(RuntimeFault, match=r"worker 2, at time 2\.25:.*learning rate"):
        engine.run(np.inf)


def test_divergence_without_gradients_names_the_worker() -> None:
    start = torch.zeros(1, 3, 2, dtype=torch.float64)
    start[0, 1] = torch.inf
    events = Recorded(3, np.array([1.0]), np.array([0]), np.array([2]))
    engine = Engine(Standstill(3, 2, torch.float64), Gossip().system(1, 1), events, start)
    with pytest.raises(RuntimeFault, match="worker 1, by time"):
        engine.run(2.0)
