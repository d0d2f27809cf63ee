"""Against figures made independently: whole DADAO trajectories, and exact moments.

Ridge regression f_i(x) = |design_i x − target_i|²/45 on 16 workers, event by event: each worker
drifts to the event's time, then jumps. The moments are exact expectations over all event sequences,
of the linear maps that `System` applies: M ↦ Σ_events rate·(J M Jᵀ − M) + F M + M Fᵀ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.linalg import expm

from decent.dynamics import Acid, Array, Dadao, Gossip, System, exchange

# time: mean over workers of E(x_i − x*)², and E x_0, for `test_dadao_has_the_exact_moments`
MOMENTS = {
    5: (0.08387911689606563, 0.005786598066807813),
    10: (0.051199961671990146, -0.07259549896966219),
    20: (0.009472446353430955, -0.23807758631626957),
    40: (0.0030661128107473175, -0.3447788692460425),
    80: (0.0005587975336404354, -0.30134022090119017),
}

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module", params=["ring", "star"])
def replay(request: pytest.FixtureRequest) -> SimpleNamespace:
    """The reference's arrays, with our error[k], state[16, 6, 5] and clock[16] beside them."""
    with np.load(DATA / f"dadao_{request.param}16.npz") as file:
        ref = SimpleNamespace(**file)
    ref.system = Dadao(float(ref.mu), float(ref.L)).system(float(ref.chi_1), float(ref.chi_2))
    ref.state, ref.clock = np.zeros_like(ref.final_state), np.zeros(16)
    ref.state[:, 0] = ref.x0
    ref.ours = np.array(list(errors(ref)))
    return ref


def errors(ref: SimpleNamespace) -> Iterator[float]:
    """Replay all events; the error at the start and after every 50th."""
    hessian = 2 / 45 * np.einsum("nkd,nke->nde", ref.design, ref.design)
    linear = 2 / 45 * np.einsum("nkd,nk->nd", ref.design, ref.target)
    events = zip(ref.event_time, ref.event_i, ref.event_j, strict=True)
    for count, (time, i, j) in enumerate(events):
        if count % 50 == 0:
            yield np.square(ref.state[:, 0] - ref.x_star).sum(axis=1).mean()
        advance(ref, time, [i] if j < 0 else [i, j])
        if j < 0:
            point = ref.system.gradient_point(ref.state[i])
            ref.system.kick_by(ref.state[i], hessian[i] @ point - linear[i])
        else:
            exchange(ref.system, ref.state[i], ref.state[j])


def advance(ref: SimpleNamespace, time: float, workers: list[int]) -> None:
    for worker in workers:
        ref.system.drift(ref.state[worker], time - ref.clock[worker])
        ref.clock[worker] = time


def test_dadao_replays_the_reference(replay: SimpleNamespace) -> None:
    assert_allclose(replay.ours, replay.error, rtol=1e-8)
    state = replay.state.copy()
    for worker, time in enumerate(replay.final_time):
        replay.system.drift(state[worker], time - replay.clock[worker])
    scale = np.abs(replay.final_state).max(axis=(0, 2))[:, np.newaxis]
    assert_allclose(state / scale, replay.final_state / scale, rtol=0, atol=1e-8)


def test_dadao_duals_sum_to_zero_at_a_common_time(replay: SimpleNamespace) -> None:
    state = replay.state.copy()
    for worker, clock in enumerate(replay.clock):
        replay.system.drift(state[worker], replay.event_time[-1] - clock)
    assert_allclose(state[:, 4:].sum(axis=0), 0, atol=1e-11)


def test_dadao_is_as_fast_as_proved(replay: SimpleNamespace) -> None:
    slope = np.polyfit(replay.error_time, np.log(replay.ours), 1)[0]
    assert slope <= -np.sqrt(replay.mu / replay.L) / (8 * np.sqrt(2))


def test_dadao_has_the_exact_moments() -> None:
    """A ring of 4 in one dimension, f_i = ½ h_i (x − c_i)², from 0; a last coordinate holds 1."""
    solution, x = -7 / 22, [0, 6, 12, 18]
    system = Dadao(1.0, 10.0).system(0.816496581, 0.612372436)
    flow = np.zeros((25, 25))
    flow[:24, :24] = np.kron(np.eye(4), system.flow)
    edges = [np.eye(25) for _ in range(4)]
    for i, jump in enumerate(edges):
        jump[:24, :24] = mixing(system, 4, i, (i + 1) % 4)
    loads = enumerate([(1, 1), (10, -1), (1, 2), (10, 0)])
    nodes = [gradient(system, i, h, c) for i, (h, c) in loads]
    jumps = [(2.449489742783 / 4, jump) for jump in edges] + [(1.0, jump) for jump in nodes]
    five = expm(5 * generator(flow, jumps))
    for time, expected in MOMENTS.items():
        moment = np.linalg.matrix_power(five, time // 5)[:, -1].reshape(25, 25)
        errors = moment[x, x] - 2 * solution * moment[x, 24] + solution**2
        assert_allclose([errors.mean(), moment[0, 24]], expected, rtol=1e-6)


def gradient(system: System, worker: int, curvature: float, centre: float) -> Array:
    """[4·S + 1, 4·S + 1]: a gradient event as a linear map of all workers' states and 1."""
    jump, own = np.eye(25), slice(6 * worker, 6 * worker + 6)
    jump[own, own] += np.outer(system.kick, curvature * system.probe + system.residual)
    jump[own, 24] -= system.kick * curvature * centre
    return jump


@pytest.mark.parametrize(
    ("workers", "closed", "plain", "momentum"),
    [
        (8, True, 0.268056, 0.359864),
        (16, True, 0.075351, 0.198551),
        (16, False, 0.020459, 0.110759),
    ],
    ids=["ring8", "ring16", "line16"],
)
def test_consensus_has_the_exact_decay(
    workers: int, closed: bool, plain: float, momentum: float
) -> None:
    """workers/2 exchanges per unit of time in all, spread evenly over a ring or a line."""
    edges = [(i, (i + 1) % workers) for i in range(workers if closed else workers - 1)]
    rate = workers / 2 / len(edges)
    ends = np.array([np.eye(workers)[i] - np.eye(workers)[j] for i, j in edges])
    laplacian = rate * ends.T @ ends
    modes, vectors = np.linalg.eigh(laplacian)
    resistance = np.einsum("en,nm,em->e", ends, np.linalg.pinv(laplacian), ends)
    chi = 1 / modes[1], resistance.max() / 2
    for method, expected in ((Gossip(), plain), (Acid(), momentum)):
        system = method.system(*chi)
        apart = np.kron(vectors[:, 1:], np.eye(len(system.slots)))
        flow = np.kron(np.eye(workers - 1), system.flow)
        jumps = [(rate, apart.T @ mixing(system, workers, *edge) @ apart) for edge in edges]
        slowest = np.linalg.eigvals(generator(flow, jumps)).real.max()
        assert_allclose(-slowest, expected, atol=1e-6)


def mixing(system: System, workers: int, i: int, j: int) -> Array:
    """[n·S, n·S]: an exchange as a linear map of all workers' states."""
    difference = np.eye(workers)[i] - np.eye(workers)[j]
    jump = np.kron(np.outer(difference, difference), np.outer(system.mix, system.message))
    return np.eye(len(jump)) - jump


def generator(flow: Array, jumps: list[tuple[float, Array]]) -> Array:
    """[N², N²]: the time derivative of the second moments, flattened."""
    one = np.eye(len(flow))
    drift = np.kron(flow, one) + np.kron(one, flow)
    return drift + sum(rate * (np.kron(jump, jump) - np.eye(len(drift))) for rate, jump in jumps)
