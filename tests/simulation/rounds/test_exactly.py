"""What each method does to the digit: fixed points, equivalences, what it conserves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from decent.dynamics import System
from decent.learning.local import SGD
from decent.simulation.rounds import (
    ADOM,
    DPSGD,
    MSDA,
    AllReduce,
    Continuized,
    DiLoCo,
    GossipPGA,
    GradientTracking,
    LocalSGD,
    Method,
    NoLoCo,
    RandomGossip,
)
from decent.simulation.rounds.edges import Edges
from decent.topology import Topology

from .common import (
    Alternating,
    Quadratic,
    Static,
    first,
    flat,
    graph,
    problem,
    quadratic,
    scattered,
)

ETA = 0.05


def close(found: Tensor, wanted: Tensor, within: float = 1e-10) -> None:
    torch.testing.assert_close(found, wanted, atol=within, rtol=0)


@pytest.mark.parametrize("adapt_first", [False, True])
def test_dpsgd_comes_to_rest_where_its_map_does(adapt_first: bool) -> None:
    """x = Wx − ηg(x), or x = W(x − ηg(x)), which is one linear system for all workers."""
    f = quadratic(6)
    case = problem(f, lr=ETA)
    n, d = f.n, f.size
    W = torch.tensor(case.mixing.weights(0))
    mixing, H = torch.kron(W, torch.eye(d, dtype=f.dtype)), block_diagonal(f.hessians)
    identity = torch.eye(n * d, dtype=f.dtype)
    ahead = mixing if adapt_first else identity
    matrix = identity - mixing + ETA * ahead @ H
    rest = torch.linalg.solve(matrix, ETA * ahead @ f.slopes.reshape(-1)).reshape(n, d)
    close(first(DPSGD(adapt_first), case, 1500)[-1].points, rest)
    assert float((rest - f.optimum).abs().max()) > 1e-2


def block_diagonal(blocks: Tensor) -> Tensor:
    """[n, d, d] as [nd, nd]."""
    n, d, _ = blocks.shape
    eye = torch.eye(n, dtype=blocks.dtype)
    return torch.einsum("nij,nm->nimj", blocks, eye).reshape(n * d, n * d)


def test_dpsgd_is_stable_by_default_where_w_has_negative_eigenvalues() -> None:
    case = problem(quadratic(4, kappa=100))
    assert np.linalg.eigvalsh(case.mixing.weights(0))[0] == pytest.approx(-1 / 3)
    assert float(first(DPSGD(), case, 3000)[-1].points.abs().max()) < 10


ALIKE: list[Method] = [
    DPSGD(),
    DPSGD(adapt_first=True),
    RandomGossip(),
    GossipPGA(period=5),
    LocalSGD(period=5),
    DiLoCo(period=5),
    NoLoCo(period=5),
]


@pytest.mark.parametrize("method", ALIKE, ids=lambda method: method.name)
@pytest.mark.parametrize("start", [None, scattered(6, 4)], ids=["common start", "own starts"])
def test_where_all_f_are_the_same_they_find_the_optimum(
    method: Method, start: Tensor | None
) -> None:
    f = quadratic(6, alike=True)
    case = problem(f, lr=ETA, start=start)
    close(first(method, case, 1500)[-1].points, f.optimum.expand(6, -1), 1e-8)


EVERY_STEP: list[Method] = [
    GossipPGA(period=1),
    LocalSGD(period=1),
    DiLoCo(period=1, lr=1.0, momentum=0.0),
]


@pytest.mark.parametrize("method", EVERY_STEP, ids=lambda method: method.name)
def test_an_average_after_each_step_is_all_reduce(method: Method) -> None:
    case = problem(quadratic(5), lr=ETA)
    for found, wanted in zip(first(method, case, 20), first(AllReduce(), case, 20), strict=True):
        close(found.points, wanted.points, 1e-12)
        assert found[1:] == wanted[1:]


def test_all_reduce_has_one_optimizer_for_all() -> None:
    """Momentum included: torch's own, on the mean gradient."""
    f = quadratic(5)
    x = torch.full((f.size,), 3.0, dtype=f.dtype, requires_grad=True)
    torchs = torch.optim.SGD([x], lr=0.02, momentum=0.9)
    for _ in range(20):
        x.grad = f.at(x.detach().expand(5, -1)).mean(0)
        torchs.step()
    case = problem(f, optimizer=lambda: momentum(f, 0.02, 0.9))
    close(first(AllReduce(), case, 20)[-1].points, x.detach().expand(5, -1), 1e-12)


def momentum(f: Quadratic, lr: float, momentum: float) -> SGD:
    made = SGD(lr, momentum)
    made.allocate(f.n, f.centers)
    return made


def test_diloco_takes_torchs_nesterov_steps() -> None:
    f = quadratic(5)
    center = torch.full((f.size,), 3.0, dtype=f.dtype, requires_grad=True)
    outer = torch.optim.SGD([center], lr=0.7, momentum=0.9, nesterov=True)
    for _ in range(8):
        x = center.detach().expand(5, -1)
        for _ in range(3):
            x = x - ETA * f.at(x)
        center.grad = center.detach() - x.mean(0)
        outer.step()
    found = first(DiLoCo(period=3), problem(f, lr=ETA), 24)[-1]
    close(found.points, center.detach().expand(5, -1), 1e-12)


@pytest.mark.parametrize("n", [1, 7, 8])
def test_the_mean_of_noloco_has_heavy_ball_momentum(n: int) -> None:
    f = quadratic(n)
    rounds = first(NoLoCo(period=1), problem(f, lr=ETA, start=scattered(n, 4)), 30)
    m = torch.zeros(f.size, dtype=f.dtype)
    for before, after in itertools.pairwise(rounds):
        m = 0.5 * m - 0.7 * ETA * f.at(before.points).mean(0)
        close(after.points.mean(0), before.points.mean(0) + m, 1e-12)


@pytest.mark.parametrize(("momentum", "agree"), [(0.5, True), (0.9, False)])
def test_noloco_agrees_at_the_momentum_of_its_runs_only(momentum: float, agree: bool) -> None:
    case = problem(flat(16), lr=0.0, start=scattered(16, 3))
    points = first(NoLoCo(period=1, momentum=momentum), case, 300)[-1].points
    apart = float((points - points.mean(0)).square().mean())
    assert apart < 1e-9 if agree else apart > 1e3


MIXING: list[Method] = [
    DPSGD(),
    GradientTracking(step=0.1),
    RandomGossip(exchanges=0.3),
    RandomGossip(exchanges=2.0),
    GossipPGA(period=3),
    LocalSGD(period=3),
    NoLoCo(period=2),
]


@pytest.mark.parametrize("method", MIXING, ids=lambda method: method.name)
@pytest.mark.parametrize("changing", [False, True])
def test_mixing_keeps_the_mean_and_brings_agreement(method: Method, changing: bool) -> None:
    start = scattered(8, 3)
    mixing = Alternating(8) if changing else Static(graph("ring", 8))
    rounds = first(method, problem(flat(8), lr=0.1, start=start, mixing=mixing), 60)
    for each in rounds:
        close(each.points.mean(0), start.mean(0), 1e-12)
    assert float(rounds[-1].points.std(0).max()) < 0.1 * float(start.std(0).max())


def test_tracking_moves_the_mean_along_the_mean_gradient() -> None:
    """As mean_i q_i = mean_i ∇f_i(x_i)."""
    f = quadratic(8)
    case = problem(f, start=scattered(8, 4), mixing=Alternating(8))
    rounds = first(GradientTracking(step=0.02), case, 50)
    for before, after in itertools.pairwise(rounds):
        moved = after.points.mean(0) - before.points.mean(0)
        close(moved, -0.02 * f.at(before.points).mean(0), 1e-12)


@pytest.mark.parametrize("method", [MSDA(), Continuized()], ids=lambda method: method.name)
def test_dual_methods_keep_the_sum_of_gradients_at_zero(method: Method) -> None:
    """y_i = ∇f_i(θ_i), and Σ_i y_i = 0 throughout."""
    f = quadratic(7)
    for each in first(method, problem(f, "star"), 30)[1:]:
        close(f.at(each.points).sum(0), torch.zeros(f.size, dtype=f.dtype), 1e-11)


@pytest.mark.parametrize("multi", [False, True])
def test_adom_solves_both_of_its_implicit_steps(multi: bool) -> None:
    """Its equations as they stand, x⁺ and y⁺ from a system of two."""
    f = quadratic(8)
    case = problem(f)
    W, gap = case.gossip_matrix()
    chi, identity = 1 / gap, torch.eye(8, dtype=f.dtype)
    if multi:
        W = identity - torch.linalg.matrix_power(identity - W, int(np.ceil(chi * np.log(2))))
        chi = 2.0
    mu, L, tau_2 = f.mu, f.L, (f.mu / f.L) ** 0.5
    sigma_2 = tau_2 / (16 * chi)
    tau_1, sigma_1 = 1 / (1 / tau_2 + 0.5), 1 / (1 / sigma_2 + 0.5)
    eta, alpha, beta, nu = 1 / (L * tau_2), mu / 2, 1 / (2 * L), mu / 2
    theta, gamma, delta = nu / (4 * sigma_2), nu / (14 * sigma_2 * chi**2), 1 / (17 * L)
    rows = [[1 + eta * alpha, -eta], [theta, 1 + theta * beta]]  # times (x⁺, y⁺)
    x = x_f = case.start
    y = y_f = z = z_f = m = torch.zeros_like(x)
    for found in first(ADOM(multi), case, 12)[1:]:
        x_g = tau_1 * x + (1 - tau_1) * x_f
        y_g, z_g = sigma_1 * y + (1 - sigma_1) * y_f, sigma_1 * z + (1 - sigma_1) * z_f
        g = f.at(x_g) - nu * x_g
        known = torch.stack(
            [
                x + eta * alpha * x_g - eta * g,
                y + theta * beta * g - theta / nu * (y_g + z_g),
            ]
        )
        solved = torch.linalg.solve(known.new_tensor(rows), known.reshape(2, -1))
        x_new, y_new = solved.reshape(known.shape)
        u = gamma / nu * (y_g + z_g) + m
        z, m = z + gamma * delta * (z_g - z) - W @ u, u - W @ u
        z_f = z_g - 0.5 * W @ (y_g + z_g)
        x, x_f = x_new, x_g + tau_2 * (x_new - x)
        y, y_f = y_new, y_g + sigma_2 * (y_new - y)
        close(found.points, x, 1e-11)


def test_continuized_one_event_after_the_other() -> None:
    """The same events, every worker drifting up to each of them."""
    topology = Topology.from_edges(5, [(0, 1), (1, 2), (2, 3), (0, 4), (1, 4)], [1, 2, 1, 3, 1])
    f = quadratic(5)
    case = problem(f)
    object.__setattr__(case, "topology", topology)
    edges = Edges(topology, seed=4)
    chi_1, chi_2 = edges.topology.chi_1, edges.topology.chi_2
    eta = 0.5 * (f.mu / (f.L * chi_1 * chi_2)) ** 0.5
    kicks = np.array([f.mu / 2, 0.5 * (f.mu * f.L * chi_1 / chi_2) ** 0.5])
    system = drifting(eta)
    state = np.zeros((5, 2, f.size))
    for each in first(Continuized(seed=4), case, 6)[1:]:
        for (i, j), gap in zip(edges.draw(5), edges.gaps(5), strict=True):
            for worker in range(5):
                system.drift(state[worker], gap)
            dual = f.dual_gradients(torch.as_tensor(state[[i, j], 0]), torch.tensor([i, j])).numpy()
            step = np.outer(kicks, dual[0] - dual[1])
            state[i] -= step
            state[j] += step
        close(each.points, f.dual_gradients(torch.as_tensor(state[:, 0]), torch.arange(5)), 1e-12)


def drifting(eta: float) -> System:
    """y, z drawn to each other, and nothing else."""
    flow = eta * np.array([[-1.0, 1.0], [1.0, -1.0]])
    one, none = np.array([1.0, 0.0]), np.zeros(2)
    return System(
        slots=("x", "z"), flow=flow, probe=one, residual=none, kick=none, message=one, mix=none
    )
