"""What is special to each method, its exact numbers, and how methods are found by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from decent.dynamics import Acid, Array, Dadao, Dynamics, Gossip, System, exchange, get, system_on
from decent.errors import DynamicsError

from .strategies import chis, dadaos, methods, numbers, states

GOSSIP = Gossip()


@given(methods(), arrays(np.float32, 4, elements=st.floats(-9, 9, width=32)))
def test_initial_state_is_new_and_at_x(method: Dynamics, x: Array) -> None:
    state = method.initial(x)
    system = method.system(1.0, 1.0)
    assert state.shape == (len(system.slots), 4)
    assert state.dtype == x.dtype
    assert_array_equal(system.gradient_point(state), x)
    assert not np.shares_memory(state, x)


@given(methods())
def test_a_worker_alone_has_a_system(method: Dynamics) -> None:
    system = method.system(0.0, 0.0)
    assert np.isfinite(system.propagator(10.0)).all()
    system.relative.propagator(1.0)


def test_alone_a2cid2_is_descent() -> None:
    system = Acid().system(0.0, 0.0)
    assert not system.flow.any()
    assert_array_equal(system.mix, [0.5, 0.5])


@given(st.data(), chis(), st.floats(0, 50))
def test_a2cid2_drift_keeps_the_sum(
    data: st.DataObject, chi: tuple[float, float], t: float
) -> None:
    system = Acid().system(*chi)
    (state,) = data.draw(states(system, workers=1))
    before = state.sum(axis=0)
    system.drift(state, t)
    assert_allclose(state.sum(axis=0), before, atol=1e-10)


@given(chis(), st.floats(0, 5))
def test_a2cid2_in_relative_coordinates(chi: tuple[float, float], t: float) -> None:
    system = Acid(step=0.1).system(*chi)
    eta, alpha_tilde = -system.flow[0, 0], system.mix[1]
    decay = math.exp(-2 * eta * t)
    assert_allclose(
        system.relative.propagator(t), [[1, (1 - decay) / 2], [0, decay]], rtol=0, atol=1e-10
    )
    assert_allclose(system.relative.mix, [0.5, alpha_tilde - 0.5])
    assert_allclose(system.relative.kick, [-0.1, 0])
    assert_array_equal(system.relative.message, [1, 0])


def test_a2cid2_on_a_ring_of_16() -> None:
    lambda_2 = 0.5 * (2 - 2 * math.cos(2 * math.pi / 16))
    system = Acid().system(1 / lambda_2, 15 / 16)
    assert system.flow[0, 1] == pytest.approx(0.14247, abs=5e-6)
    assert system.mix[1] == pytest.approx(1.87169, abs=5e-6)


@given(dadaos(), chis(product=(0.5, 0.5)))
def test_dadao_forms_agree_at_the_designed_rate(method: Dadao, chi: tuple[float, float]) -> None:
    general = method.system(*chi)
    published = Dadao(method.mu, method.L, "published").system(*chi)
    for field in fields(System)[1:]:
        assert_allclose(getattr(general, field.name), getattr(published, field.name), rtol=1e-12)


def test_dadao_published_numbers() -> None:
    """ν = 1, L = 16: s = √(ν/L) = ¼."""
    system = Dadao(mu=2.0, L=16.0, parameters="published").system(1.0, 0.5)
    s = 0.25
    assert_allclose(system.flow[0, :2], [-s / 8, s / 8])
    assert_allclose(system.flow[1, :2], [s / 8, -s / 8])
    assert_allclose(system.flow[2, 2:4], [-s / 4, s / 4])
    assert_allclose(system.flow[3], [0, -2, -2, 0, -2, 0])
    assert_allclose(system.flow[4, 4:], [-s / 4, s / 4])
    assert_allclose(system.flow[5, 4:], [s / 8, -s / 8])
    assert_allclose(system.kick, [-1 / 64, -1 / 16, 0, 1 + s / 4, 0, 0])
    assert_allclose(system.mix, [0, 0, 0, 0, 0.5, 8])
    assert_allclose(system.residual, [-1, 0, 0, -1, 0, 0])


@given(dadaos(), chis(product=(1.0, 1e3)))
def test_dadao_general_numbers_as_printed(method: Dadao, chi: tuple[float, float]) -> None:
    """JMLR, Lemma 12, but for α = δ."""
    product, nu, smooth = chi[0] * chi[1], method.mu / 2, method.L
    q, root = math.sqrt(nu / (product * smooth)), math.sqrt(2)
    system = method.system(*chi)
    assert_allclose(system.flow[0, 1], q / (8 * root))
    assert_allclose(system.flow[1, 0], math.sqrt(nu / smooth) / 8)
    assert_allclose(system.flow[2, 3], q / (4 * root))
    assert_allclose(system.flow[3, 2], -math.sqrt(smooth / (product * nu)) / (2 * root))
    assert_allclose(system.flow[5, 4], q / (8 * root))
    assert_allclose(system.mix[5], math.sqrt(2 * chi[0] * smooth / (chi[1] * nu)))
    assert_allclose(system.kick[1], -1 / (4 * root * math.sqrt(nu * smooth * product)))
    assert_allclose(system.kick[3], 1 + q / (4 * root))


@given(st.data(), dadaos(), chis())
def test_dadao_jumps_commute(data: st.DataObject, method: Dadao, chi: tuple[float, float]) -> None:
    system = method.system(*chi)
    one = data.draw(states(system, workers=2))
    other = one.copy()
    gradient = data.draw(arrays(np.float64, 3, elements=numbers(10)))
    system.kick_by(one[0], gradient)
    exchange(system, *one)
    exchange(system, *other)
    system.kick_by(other[0], gradient)
    assert_array_equal(one, other)


@given(st.data(), dadaos(), chis(), st.floats(0, 10))
def test_dadao_rests_at_the_solution(
    data: st.DataObject, method: Dadao, chi: tuple[float, float], t: float
) -> None:
    """f_i(x) = ½ h_i (x − c_i)²; drift, gradients and exchanges all leave the solution alone."""
    system = method.system(*chi)
    curvature = data.draw(arrays(np.float64, 4, elements=st.floats(method.mu, method.L)))
    centre = data.draw(arrays(np.float64, 4, elements=numbers(10)))
    x = (curvature @ centre) / curvature.sum()
    y = curvature * (x - centre) - method.mu / 2 * x
    z = y.mean() - y
    rest = np.stack([np.full(4, x), np.full(4, x), y, y, z, z], axis=1)[:, :, np.newaxis]
    scale = 1 + np.abs(rest).max()
    for state in after_each_event(system, rest, curvature, centre, t):
        # an error of rounding grows by no more than the largest constant of an event
        largest = max(np.abs(system.mix).max(), np.abs(system.kick).max(), 1.0)
        assert_allclose(state, rest, rtol=0, atol=1e-11 * scale * largest)


def after_each_event(
    system: System, rest: Array, curvature: Array, centre: Array, t: float
) -> Iterator[Array]:
    drifted, kicked, exchanged = rest.copy(), rest.copy(), rest.copy()
    for worker in range(4):
        system.drift(drifted[worker], t)
        gradient = curvature[worker] * (system.gradient_point(rest[worker]) - centre[worker])
        system.kick_by(kicked[worker], gradient)
    exchange(system, exchanged[0], exchanged[1])
    yield from (drifted, kicked, exchanged)


def test_dadao_published_refuses_rare_exchanges() -> None:
    method = Dadao(1.0, 10.0, "published")
    method.system(1.0, 0.5 * (1 + 1e-12))
    with pytest.raises(DynamicsError, match="general"):
        method.system(1.0, 0.51)


@pytest.mark.parametrize(
    "chi", [(math.inf, 1.0), (1.0, math.nan), (-1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]
)
@pytest.mark.parametrize("method", [Acid(), Dadao(1, 2)])
def test_refuses_impossible_chi(method: Dynamics, chi: tuple[float, float]) -> None:
    with pytest.raises(DynamicsError, match="connect"):
        method.system(*chi)


def test_get_finds_methods_by_name() -> None:
    assert get("gossip") == Gossip()
    assert get("a2cid2", step=0.5) == Acid(step=0.5)
    assert get("dadao", mu=1.0, L=4.0) == Dadao(1.0, 4.0)
    assert get("decent.dynamics.acid:Acid", step=2) == Acid(2)
    assert get(f"{__name__}:GOSSIP") is GOSSIP
    assert [method.name for method in (Gossip(), Acid(), Dadao(1, 1))] == [
        "gossip",
        "a2cid2",
        "dadao",
    ]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("adpsgd", {}, "'adpsgd'.*gossip, a2cid2, dadao"),
        ("gossip", {"mu": 1}, "'mu'.*expected step"),
        ("dadao", {"mu": 2, "L": 1}, "mu ≤ L"),
        ("dadao", {"mu": 1, "L": 1, "parameters": "best"}, "'general' or 'published'"),
        ("a2cid2", {"step": 0}, "step = 0"),
        ("a2cid2", {"step": "fast"}, "step = 'fast'.*type float"),
        ("nowhere_at_all:Thing", {}, "nowhere_at_all"),
        ("decent.dynamics:Thing", {}, "Thing"),
        (":Thing", {}, "package.module:attribute"),
        ("math:pi", {}, "making one"),
        ("math:sqrt", {"x": 4}, "math:sqrt"),
        ("builtins:list", {}, "a list: expected a name"),
        (f"{__name__}:GOSSIP", {"step": 1}, "no options"),
    ],
)
def test_get_says_what_is_wrong(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DynamicsError, match=message):
        get(name, **options)


def test_dadao_wants_to_know_the_curvature() -> None:
    assert Dadao(mu=1.0).needs_curvature
    with pytest.raises(DynamicsError, match=r"Set dynamics\.mu and dynamics\.L"):
        Dadao(mu=1.0).system(1.0, 1.0)


@pytest.mark.parametrize("made", [Dadao(1.0, 10.0), Acid()], ids=["dadao", "a2cid2"])
def test_safety_designs_for_lower_rates(made: Dynamics) -> None:
    """As if all rates were so many times lower; A²CiD²'s α̃ is a ratio and stays."""
    careful = replace(made, safety=4.0).system(2.0, 1.0)
    assert_allclose(careful.flow, made.system(8.0, 4.0).flow)
    assert_allclose(careful.mix, made.system(8.0, 4.0).mix)


def test_gossip_needs_no_spectrum() -> None:
    class Expensive:
        def __getattr__(self, name: str) -> float:
            raise AssertionError(name)

    assert system_on(Gossip(), Expensive()).mix == [0.5]  # type: ignore[arg-type]
