"""Against figures made independently: trajectories, moments and decay exponents.

DADAO's trajectories are replayed on the very events. Its moments are exact expectations, and so are
the exponents at which E|x_i − x̄|² decays without gradients, plain or with A²CiD²'s momentum: these
are met by the mean over many replicas, within its standard error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigs

from decent.dynamics import Acid, Array, Dadao, Dynamics, Gossip, System
from decent.learning.consensus import Standstill
from decent.learning.ridge import Quadratic
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Superposed
from decent.simulation.ideal.replay import replay
from decent.simulation.ideal.run import initial_state
from decent.topology import Topology, family

DATA = Path(__file__).parents[2] / "data"
MOMENTS: dict[str, Any] = json.loads((DATA / "dadao_moments.json").read_text())
DECAYS = {
    f"{name} {n}": (family(name, n).with_models_per_worker(1.0), *figures)
    for name, n, *figures in json.loads((DATA / "momentum.json").read_text())["rows"]
}


@pytest.mark.parametrize("name", ["ring", "star"])
def test_dadao_replays_the_reference(name: str) -> None:
    found = replay(DATA / f"dadao_{name}16.npz")
    assert found["error_deviation"] < 1e-8
    assert found["state_deviation"] < 1e-8
    assert (found["workers"], found["samples"], found["features"]) == (16, 45, 5)
    assert found["gradients"] + found["exchanges"] > 3000
    assert found["error_last"] < 1e-4 * found["error_first"]


@pytest.mark.parametrize(
    ("replicas", "seed"),
    [(4000, 2), pytest.param(20_000, 5, marks=pytest.mark.slow)],
)
def test_dadao_has_the_exact_moments(replicas: int, seed: int) -> None:
    """Mean square error and mean of every worker, within three standard errors at every time."""
    ring = Topology.from_edges(4, family("ring", 4).edges, MOMENTS["total_rate"] / 4)
    assert (ring.chi_1, ring.chi_2) == pytest.approx((MOMENTS["chi_1"], MOMENTS["chi_2"]))
    curvature, centre = (np.array(MOMENTS[key], float)[:, np.newaxis] for key in ("h", "c"))
    problem, method = Quadratic(curvature[:, :, np.newaxis], centre), Dadao(1.0, 10.0)
    assert float(problem.optimum) == pytest.approx(MOMENTS["x_star"])
    state = initial_state(method, torch.zeros(4 * replicas, 1, dtype=torch.float64))
    system = method.system(ring.chi_1, ring.chi_2)
    engine = Engine(problem, system, Superposed(ring, replicas, seed=seed), state)
    figures = (MOMENTS[key] for key in ("time", "mean_square_error", "mean_x"))
    for time, square, means in zip(*figures, strict=True):
        engine.run(time)
        x = engine.points(time).view(replicas, 4).numpy()
        errors = np.square(x - MOMENTS["x_star"]).mean(axis=1)
        assert errors.mean() == pytest.approx(square, abs=3 * deviation(errors) + 1e-12)
        assert (np.abs(x.mean(axis=0) - means) <= 3 * deviation(x)).all()
    assert deviation(errors) < 0.05 * square


def deviation(values: Array) -> Any:
    """Of the mean over the rows."""
    return values.std(axis=0) / np.sqrt(len(values))


@pytest.mark.parametrize("graph", [name for name in DECAYS if name != "ring 32"])
@pytest.mark.parametrize("method", [Gossip(), Acid()], ids=lambda method: method.name)
def test_agreement_decays_as_computed(graph: str, method: Dynamics) -> None:
    """From the slowest mode of the second moments the decay is exponential from the start: no
    transient to wait for, and the exponent is that of the mean over replicas."""
    topology, chi_1, chi_2, plain, momentum = DECAYS[graph]
    assert (topology.chi_1, topology.chi_2) == pytest.approx((chi_1, chi_2), rel=1e-4)
    exponent, replicas, n = plain if method == Gossip() else momentum, 1000, topology.n
    system = method.system(topology.chi_1, topology.chi_2)
    rate, mode = slowest(system, topology)
    assert rate == pytest.approx(exponent, abs=1e-6)
    state = torch.from_numpy(np.tile(mode, (1, replicas, 1)))
    source = Superposed(topology, replicas, seed=7, gradients=False)
    engine = Engine(Standstill(n, mode.shape[2], torch.float64), system, source, state)
    until = 1.5 / exponent
    engine.run(until)
    before, after = (apart(each, n) for each in (state[0], engine.points(until)))
    slope = np.log(before.mean() / after.mean()) / until
    error = deviation(after) / after.mean() / until
    assert error < 0.02 * exponent
    assert abs(slope - exponent) < 4 * error


def apart(points: torch.Tensor, n: int) -> Array:
    """Σ_i |x_i − x̄|² of each replica."""
    x = points.view(-1, n, points.shape[1])
    return np.asarray((x - x.mean(1, keepdim=True)).square().sum((1, 2)))


def slowest(system: System, topology: Topology) -> tuple[float, Array]:
    """The exponent at which second moments decay, and a state [S, n, d] whose d columns together
    have those of that mode: M ↦ F M + M Fᵀ + Σ_events rate·(J M Jᵀ − M) leaves M but for a factor.
    Where nothing drifts, only slot 0 matters."""
    if system.flow.any():
        return decaying(system, topology)
    rate, mode = decaying(Gossip().system(1.0, 1.0), topology)
    return rate, np.repeat(mode, len(system.slots), axis=0)


def decaying(system: System, topology: Topology) -> tuple[float, Array]:
    n, slots = topology.n, len(system.slots)
    modes = np.linalg.eigh(topology.laplacian())[1][:, 1:]  # apart from the mean, which stays
    flow, one = np.kron(np.eye(n - 1), system.flow), np.eye((n - 1) * slots)
    jumps = []
    for (i, j), rate in zip(topology.edges, topology.rates, strict=True):
        ends = np.outer(modes[i] - modes[j], modes[i] - modes[j])
        jumps.append((rate, one - np.kron(ends, np.outer(system.mix, system.message))))

    def change(flat: Array) -> Array:
        moments = flat.reshape(one.shape)
        total = flow @ moments + moments @ flow.T
        for rate, jump in jumps:
            total = total + rate * (jump @ moments @ jump.T - moments)
        return total.ravel()

    generator = LinearOperator((one.size, one.size), matvec=change, dtype=float)
    value, vector = eigs(generator, k=1, which="LR", v0=one.ravel())
    moments = vector.real.reshape(one.shape)
    weights, columns = np.linalg.eigh((moments + moments.T) * np.sign(np.trace(moments)))
    root = columns * np.sqrt(np.maximum(weights, 0) / weights.max())
    state = (np.kron(modes, np.eye(slots)) @ root).reshape(n, slots, -1)
    return -value[0].real, state.transpose(1, 0, 2)
