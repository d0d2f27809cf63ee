"""What holds for any linear system with jumps."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.linalg import expm

from decent.dynamics import (
    Acid,
    Array,
    Dadao,
    Dynamics,
    Gossip,
    System,
    common,
    conserved,
    exchange,
)
from decent.errors import DynamicsError
from decent.testing import systems

from .strategies import chis, methods, states

TIMES = st.floats(0, 2)
EPS = np.finfo(float).eps


@given(st.data(), systems())
def test_exchange_conserves_the_sum_of_every_slot(data: st.DataObject, system: System) -> None:
    check_conservation(system, data.draw(states(system, workers=2)))


@given(st.data(), methods(), chis())
def test_methods_conserve_the_sum_of_every_slot(
    data: st.DataObject, method: Dynamics, chi: tuple[float, float]
) -> None:
    system = method.system(*chi)
    check_conservation(system, data.draw(states(system, workers=2)))


def check_conservation(system: System, state: Array) -> None:
    before = state.sum(axis=0)
    exchange(system, *state)
    assert_allclose(state.sum(axis=0), before, atol=4 * EPS * np.abs(state).max(), rtol=4 * EPS)


@given(systems(), TIMES, TIMES)
def test_propagators_compose(system: System, s: float, t: float) -> None:
    whole, parts = system.propagator(s + t), system.propagator(s) @ system.propagator(t)
    size = np.exp(np.abs(system.flow).sum(axis=0).max() * (s + t))
    assert_allclose(parts, whole, rtol=0, atol=1e-14 * size)


@given(systems(), TIMES)
def test_propagator_is_exact_to_rounding(system: System, t: float) -> None:
    expected = exponential(system.flow * t)
    scale = max(1.0, np.abs(expected).max())
    assert_allclose(system.propagator(t), expected, rtol=0, atol=1e-13 * scale)


def exponential(matrix: Array) -> Array:
    """Taylor's series with 60 digits."""
    with localcontext(prec=60):
        exact = np.vectorize(Decimal, otypes=[object])(matrix)
        term = total = np.eye(len(matrix), dtype=int).astype(object)
        for order in range(1, 100):
            term = term @ exact / order
            total = total + term
    return total.astype(float)


@given(systems() | st.builds(lambda method, chi: method.system(*chi), methods(), chis()), TIMES)
def test_propagator_agrees_with_scipy(system: System, t: float) -> None:
    """Loosely: scipy's own shortcut for 2×2 is off by 1e-12 and more."""
    expected = expm(system.flow * t)
    scale = max(1.0, np.abs(expected).max())
    assert_allclose(system.propagator(t), expected, rtol=0, atol=1e-9 * scale)


def test_propagator_knows_closed_forms() -> None:
    turn = plain(flow=[[0, 1], [-1, 0]])
    assert_allclose(turn.propagator(np.pi / 2), [[0, 1], [-1, 0]], atol=1e-15)
    shift = plain(flow=[[0, 1e9], [0, 0]])
    assert_allclose(shift.propagator(2.0), [[1, 2e9], [0, 1]], rtol=1e-15)
    assert_array_equal(plain(flow=np.zeros((2, 2))).propagator(3.0), np.eye(2))


@given(systems(), st.data())
def test_relative_coordinates_are_the_same_system(system: System, data: st.DataObject) -> None:
    """Any order of drifts, gradients and exchanges, in either coordinates, comes to the same."""
    steps = st.lists(st.tuples(st.sampled_from(["drift", "gradient", "exchange"]), TIMES))
    state = data.draw(states(system, workers=2))
    basis, relative = system.basis, system.relative
    twin = basis @ state
    bound = growth(basis) * growth(np.linalg.inv(basis)) * (1 + np.abs(state).max())
    for kind, amount in data.draw(steps.map(lambda drawn: drawn[:5])):
        for variant, pair in ((system, state), (relative, twin)):
            apply(variant, pair, kind, amount)
        bound *= worst(system, kind, amount) * worst(relative, kind, amount)
        assert_allclose(twin, basis @ state, rtol=0, atol=64 * EPS * bound)


def apply(system: System, pair: Array, kind: str, amount: float) -> None:
    if kind == "exchange":
        exchange(system, *pair)
    elif kind == "drift":
        system.drift(pair[0], amount)
    else:
        system.kick_by(pair[0], amount * system.gradient_point(pair[0]) - 1.0)


def worst(system: System, kind: str, amount: float) -> float:
    """An upper bound on the growth of errors in one event."""
    if kind == "exchange":
        return 1 + 2 * growth(np.outer(system.mix, system.message))
    if kind == "drift":
        return float(np.exp(growth(system.flow) * amount))
    jump = np.outer(system.kick, np.abs(amount * system.probe) + np.abs(system.residual))
    return 1 + growth(jump) + float(np.abs(system.kick).max())


def growth(matrix: Array) -> float:
    return float(np.abs(matrix).sum(axis=1).max())


@given(systems())
def test_relative_kick_touches_slot_zero_alone(system: System) -> None:
    assert_array_equal(system.relative.kick[1:], 0)
    assert system.relative.kick[0] == system.kick[0]
    assert_array_equal(system.relative.basis, np.eye(len(system.slots)))


@given(st.data(), systems())
def test_reference_operations_keep_the_dtype(data: st.DataObject, system: System) -> None:
    state = data.draw(states(system, workers=2)).astype(np.float32)
    exchange(system, *state)
    system.drift(state[0], 0.5)
    system.kick_by(state[0], state[0, 0].copy())
    assert state.dtype == np.float32


def test_constants_are_read_only_copies() -> None:
    flow = np.zeros((2, 2))
    system = plain(flow=flow)
    flow[0, 0] = 1
    assert system.flow[0, 0] == 0
    for array in (system.flow, system.kick, system.basis, system.relative.mix):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        (Gossip(), [[1]]),
        (Acid(), [[0.5, 0.5]]),
        (Dadao(1.0, 1e4), [[0, 0, 0, 0, 1 / 3, 2 / 3]]),
    ],
)
def test_what_drift_leaves_alone_at_every_pace(method: Dynamics, rows: list[list[float]]) -> None:
    one, other = method.system(9.0, 2.0).flow, method.system(15.0, 2.0 * 15 / 9).flow
    common = conserved(other, conserved(one))
    assert_allclose(common, rows, atol=1e-12)
    assert_allclose(conserved(one, common), rows, atol=1e-12)
    assert_allclose(common @ one, 0, atol=1e-12)


@given(st.data(), systems())
def test_conserved_combinations_are_all_there_are(data: st.DataObject, system: System) -> None:
    size = len(system.slots)
    assert conserved(np.zeros((size, size))).tolist() == np.eye(size).tolist()
    own = np.array(data.draw(st.lists(st.floats(0.1, 1), min_size=size, max_size=size)))
    flow = system.flow - np.outer(own, own @ system.flow) / (own @ own)
    flow[np.abs(flow) < 1e-12] = 0.0
    rows = conserved(flow)
    assert_allclose(rows @ flow, 0, atol=1e-7)
    assert_allclose(np.abs(rows).sum(axis=1), 1)
    assert_allclose(common(own[np.newaxis], rows), own[np.newaxis] / own.sum(), atol=1e-6)
    assert_allclose(common(rows, rows), rows, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": ()}, "at least one name"),
        ({"slots": ("x", "x")}, "each once"),
        ({"flow": np.zeros(2)}, r"flow of shape \(2,\)"),
        ({"mix": np.zeros(3)}, r"mix of shape \(3,\).*\(2,\)"),
        ({"probe": [1, np.nan]}, "probe.*finite"),
        ({"message": ["a", "b"]}, "message.*numbers"),
        ({"kick": [0, 1]}, "kick.*first entry"),
        ({"kick": [1e-320, 1]}, "kick.*negligible"),
    ],
)
def test_refuses_what_is_not_a_system(change: dict[str, object], message: str) -> None:
    with pytest.raises(DynamicsError, match=message):
        plain(**change)


@pytest.mark.parametrize("dt", [-1.0, float("nan"), float("inf")])
def test_refuses_impossible_times(dt: float) -> None:
    with pytest.raises(DynamicsError, match="finite time"):
        plain().propagator(dt)


def plain(**change: object) -> System:
    """Two slots at rest, but for `change`."""
    zero = {name: np.zeros(2) for name in ("probe", "residual", "kick", "message", "mix")}
    return System(**{"slots": ("x", "v"), "flow": np.zeros((2, 2)), **zero, **change})  # type: ignore[arg-type]
