"""Drift of all workers at once is each one's propagator, for any flow and any times."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose

from decent.dynamics import Acid, Array, Dadao, Dynamics, Gossip, System
from decent.learning.consensus import Standstill
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Recorded
from decent.testing import systems

SIZES = [2, 80]  # vectors short and long are held in different coordinates
D = 1e-133
FLOWS = {
    "none": [[0.0, 0], [0, 0]],
    "defective": [[0.0, 1], [0, 0]],
    "defective and decaying": [[-0.3, 1], [0, -0.3]],
    "defective, three": [[-0.1, 1, 0], [0, -0.1, 1], [0, 0, -0.1]],
    "defective, beside a turn": [[0.0, 1, 1, 0], [-1, 0, 0, 1], [0, 0, 0, 1], [0, 0, -1, 0]],
    "all but defective": [[0.0, 1], [1e-9, 0]],
    "all but a turn": [[0.0, 1], [-1e-12, 0]],
    "defective but for dust": [
        [-D, -D, -D, -D, -D],
        [-D, -D, -D, -D, -D],
        [-D, -D, -D, -D, -D],
        [-D, 0.5, -D, -D, -D],
        [-D, -D, 1, -D, -D],
    ],
    "turn": [[0.0, 1], [-1, 0]],
    "turn that fades": [[-0.2, 3], [-3, -0.2]],
    "two turns": [[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, -0.1, 2], [0, 0, -2, -0.1]],
    "repeated": [[-0.4, 0, 0], [0, -0.4, 0], [0, 0, -0.4]],
    "growing": [[0.3, 0.1], [0, 0.2]],
    "stiff": [[-1e3, 1e3], [1e-3, -1e-3]],
    "one way": [[0.0, 0, 0], [1, 0, 0], [0, 0, -1]],
}


def check(system: System, size: int, times: Array) -> None:
    """No event at all; workers are looked at after one of `times` each."""
    slots, n = len(system.slots), len(times)
    start = torch.from_numpy(np.random.default_rng(0).normal(size=(slots, n, size)))
    nothing = Recorded(n, np.empty(0), np.empty(0), np.empty(0))
    engine = Engine(Standstill(n, size, torch.float64), system, nothing, start)
    found = engine.state(times)
    for worker, time in enumerate(times.tolist()):
        exact = system.propagator(time) @ start[:, worker].numpy()
        scale = max(1.0, np.abs(system.propagator(time)).max())
        assert_allclose(found[:, worker], exact, rtol=0, atol=1e-9 * scale)
        if worker in (0, n - 1):
            at_once = engine.points(time)[worker]
            assert_allclose(at_once, exact[0], rtol=0, atol=1e-9 * scale)
    assert_allclose(engine.state(), start, rtol=0, atol=1e-9)


def drifting(flow: Array) -> System:
    size = len(flow)
    one, zero = np.eye(size)[0], np.zeros(size)
    ratios = 1 + np.arange(size) / 2  # of the kicks: the state is not held as it is
    return System(tuple("abcdef"[:size]), flow, one, zero, ratios, one, one)


TIMES = arrays(float, 4, elements=st.floats(0, 30, allow_subnormal=False))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FLOWS)
def test_flows_with_and_without_eigenvectors(name: str, size: int) -> None:
    system = drifting(np.array(FLOWS[name]))
    check(system, size, np.array([0.0, 1e-6, 0.03, 1.0, 2.5, 17.0]))


@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=60)
@given(systems(), TIMES)
def test_any_flow(size: int, system: System, times: Array) -> None:
    check(system, size, times)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "method", [Gossip(), Acid(), Dadao(1, 10), Dadao(1e-3, 1.0), Dadao(1, 1), Dadao(1, 1e4)]
)
@pytest.mark.parametrize("chi", [(13.1, 0.94), (0.5, 0.5), (52.0, 0.97), (0.01, 0.01)])
def test_every_method(method: Dynamics, chi: tuple[float, float], size: int) -> None:
    times = np.array([0.0, 1e-3, 0.5, 3.0, 40.0, 200.0])
    check(method.system(*chi), size, times)


@settings(max_examples=50)
@given(systems(), st.floats(0, 5), st.floats(0, 5))
def test_drift_goes_on_where_it_stopped(system: System, first: float, then: float) -> None:
    """Worker 1 meets nobody; worker 0 meets it in between, and both change nothing."""
    still = System(system.slots, system.flow, *(0 * system.probe,) * 5)
    events = Recorded(2, np.array([first]), np.array([0]), np.array([1]))
    start = torch.from_numpy(np.random.default_rng(1).normal(size=(len(system.slots), 2, 3)))
    engine = Engine(Standstill(2, 3, torch.float64), still, events, start)
    engine.run(np.inf)
    exact = system.propagator(first + then) @ start.transpose(0, 1).numpy()
    scale = np.abs(system.propagator(first)).max() * np.abs(system.propagator(then)).max()
    found = engine.state(first + then).transpose(0, 1)
    assert_allclose(found, exact, rtol=0, atol=1e-9 * max(1.0, scale) * 10)
