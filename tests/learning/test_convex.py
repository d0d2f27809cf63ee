"""Convex tasks: gradients, curvature, optimum and duals are what their definitions say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decent.errors import TaskError
from decent.learning import Layout, Trainer, to_vector
from decent.learning.consensus import Consensus
from decent.learning.convex import Convex, ConvexTask, Point
from decent.learning.logistic import Logistic, LogisticObjective, newton
from decent.learning.objective import starting_points
from decent.learning.ridge import Quadratic, Ridge, RidgeObjective
from decent.learning.task import load

DATA = Path(__file__).parents[1] / "data"
TASKS = [Ridge(), Ridge(l2=0.5), Logistic(), Logistic(l2=0.01, spread=3.0)]
N = 6


def names(task: ConvexTask) -> str:
    return f"{task.name}-{task.l2}"


def everyone(objective: Convex) -> Tensor:
    return torch.arange(objective.n)


def gradients(objective: Convex, points: Tensor) -> Tensor:
    """One for each worker, at its row of `points`."""
    workers = everyone(objective)
    return objective.gradients(points, workers, objective.draw(workers))[0]


def draw(objective: Convex, rows: int | None = None, scale: float = 1.0, seed: int = 0) -> Tensor:
    """Rows around the optimum."""
    rng = torch.Generator().manual_seed(seed)
    shape = (objective.n if rows is None else rows, objective.size)
    noise = torch.randn(shape, dtype=torch.float64, generator=rng)
    return objective.optimum + scale * noise


@st.composite
def problems(pick: st.DrawFn) -> Convex:
    """Ridge or logistic regression on any small data."""
    n, d, extra = pick(st.integers(1, 5)), pick(st.integers(1, 4)), pick(st.integers(0, 8))
    rng = np.random.default_rng(pick(st.integers(0, 1000)))
    designs = rng.normal(size=(n, d + 1 + extra, d)) * 10 ** rng.uniform(-1, 1)
    l2 = pick(st.sampled_from([0.01, 0.3, 2.0]))
    if pick(st.booleans()):
        return RidgeObjective(designs, rng.normal(size=designs.shape[:2]), l2)
    return LogisticObjective(designs, rng.choice([-1, 1], designs.shape[:2]), l2)


@pytest.mark.parametrize("task", TASKS, ids=names)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_gradients_are_those_of_the_loss(task: ConvexTask, batch_size: int) -> None:
    objective = task.objective(N)
    points = draw(objective)
    found = gradients(objective, points)
    for worker in range(N):
        trainer = Trainer(task, worker, N, seed=0, batch_size=batch_size)
        (parameter,) = trainer.model.parameters()
        parameter.data.copy_(points[worker])
        task.loss(trainer.model, trainer.next_batch()).backward()
        torch.testing.assert_close(found[worker], parameter.grad, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=names)
def test_values_are_the_mean_of_the_losses(task: ConvexTask) -> None:
    objective = task.objective(N)
    points = draw(objective, rows=3)
    for point, value in zip(points, objective.values(points), strict=True):
        model = Point(task.features)
        model.x.data.copy_(point)
        losses = [task.loss(model, task.data(k, N).tensors).item() for k in range(N)]
        assert float(value) == pytest.approx(np.mean(losses), rel=1e-11)
        assert task.evaluate(model) == objective.measures(point[None])


@given(problems())
@settings(max_examples=40)
def test_all_is_zero_at_the_optimum(objective: Convex) -> None:
    points = objective.optimum.repeat(objective.n, 1)
    size = gradients(objective, points).abs().sum() + objective.L * points.abs().sum()
    assert float(gradients(objective, points).sum(0).norm()) <= 1e-13 * float(size)
    assert objective.measures(points) == {"distance": 0.0, "gap": 0.0}
    assert float(objective.values(points[:1])) == pytest.approx(objective.optimal_value, rel=1e-14)


@given(problems(), st.floats(1e-2, 10.0))
@settings(max_examples=40)
def test_measures_grow_as_convexity_says(objective: Convex, scale: float) -> None:
    points = draw(objective, scale=scale)
    found = objective.measures(points)
    apart = points - objective.optimum
    assert found["distance"] == pytest.approx(float(apart.square().sum() / objective.n))
    slack = 1e-9 * found["gap"] + 1e-13
    assert objective.mu / 2 * found["distance"] <= found["gap"] + slack
    assert found["gap"] <= objective.L / 2 * found["distance"] + slack


@given(problems(), st.floats(0.1, 30.0))
@settings(max_examples=40)
def test_dual_gradients_undo_gradients(objective: Convex, scale: float) -> None:
    points, workers = draw(objective, scale=scale), everyone(objective)
    slopes = gradients(objective, points)
    found = objective.dual_gradients(slopes, workers)
    torch.testing.assert_close(gradients(objective, found), slopes, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found, points, rtol=1e-8, atol=1e-8)
    maximal = (found * slopes).sum(1)
    torch.testing.assert_close(maximal, (points * slopes).sum(1), rtol=1e-7, atol=1e-7)


def hessian(objective: Convex, worker: int, point: Tensor) -> Tensor:
    """By differences of gradients, along each axis."""
    step = 1e-5
    moved = point + step * torch.eye(objective.size, dtype=torch.float64)
    back = point - step * torch.eye(objective.size, dtype=torch.float64)
    workers = torch.full((objective.size,), worker)
    up, down = (objective.gradients(each, workers, workers)[0] for each in (moved, back))
    return (up - down) / (2 * step)


@given(problems(), st.floats(0.0, 5.0))
@settings(max_examples=40)
def test_mu_and_L_bound_the_curvature(objective: Convex, scale: float) -> None:
    for worker, point in enumerate(draw(objective, scale=scale)):
        values = torch.linalg.eigvalsh(hessian(objective, worker, point))
        assert objective.mu - 1e-6 * objective.L <= float(values[0])
        assert float(values[-1]) <= objective.L * (1 + 1e-6)


@pytest.mark.parametrize("task", TASKS, ids=names)
def test_mu_and_L_are_reached(task: ConvexTask) -> None:
    """By ridge everywhere; by logistic regression at 0, and infinitely far from it."""
    objective = task.objective(N)
    near, far = torch.zeros(task.features), torch.full((task.features,), 1e4)
    spectra = [torch.linalg.eigvalsh(hessian(objective, k, near)) for k in range(N)]
    assert float(max(each[-1] for each in spectra)) == pytest.approx(objective.L, rel=1e-6)
    spectra = [torch.linalg.eigvalsh(hessian(objective, k, far)) for k in range(N)]
    assert float(min(each[0] for each in spectra)) == pytest.approx(objective.mu, rel=1e-3)


@pytest.mark.parametrize("graph", ["ring", "star"])
def test_the_reference(graph: str) -> None:
    with np.load(DATA / f"dadao_{graph}16.npz") as file:
        objective = RidgeObjective(file["design"], file["target"])
        np.testing.assert_allclose(objective.optimum, file["x_star"], rtol=1e-10)
        known = (float(file["mu"]), float(file["L"]))
        assert (objective.mu, objective.L) == pytest.approx(known, rel=1e-10)
        start = objective.measures(torch.from_numpy(file["x0"]))
        assert start["distance"] == pytest.approx(file["error"][0], rel=1e-12)


def test_a_quadratic_whose_answer_is_known() -> None:
    objective = Quadratic([[[1.0]], [[3.0]]], [[0.0], [4.0]], floors=[1.0, 0.0])
    assert (objective.mu, objective.L, objective.n, objective.size) == (1.0, 3.0, 2, 1)
    assert float(objective.optimum) == pytest.approx(3.0)
    assert objective.optimal_value == pytest.approx((1 + 9 / 2 + 3 / 2) / 2)
    points = torch.tensor([[2.0], [2.0]], dtype=torch.float64)
    assert gradients(objective, points).flatten().tolist() == [2.0, -6.0]
    assert objective.measures(points) == pytest.approx({"distance": 1.0, "gap": 1.0})
    assert objective.dual_gradients(points, torch.tensor([1, 0])).flatten().tolist() == (
        pytest.approx([4 + 2 / 3, 2.0])
    )


@pytest.mark.parametrize("task", TASKS, ids=names)
@pytest.mark.parametrize("count", [1, 7, 3000])
def test_any_number_of_rows_in_any_order(task: ConvexTask, count: int) -> None:
    """The same as one by one; and what comes back is the caller's."""
    objective = task.objective(N)
    points, workers = draw(objective, rows=count), torch.arange(count).flip(0) % N
    found, losses = objective.gradients(points, workers, workers)
    duals = objective.dual_gradients(found, workers)
    assert losses is None
    for row in range(0, count, 500):
        one = slice(row, row + 1)
        alone = objective.gradients(points[one], workers[one], workers[one])[0]
        torch.testing.assert_close(alone, found[one], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(duals, points, rtol=1e-9, atol=1e-9)
    again = found.clone()
    found.zero_(), duals.zero_()
    assert torch.equal(objective.gradients(points, workers, workers)[0], again)


def test_logistic_regression_is_taken_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Logistic().objective(N)
    points = draw(objective)
    whole = (gradients(objective, points), objective.values(points), everyone(objective))
    monkeypatch.setattr("decent.learning.logistic.CHUNK", 1)
    torch.testing.assert_close(gradients(objective, points), whole[0])
    torch.testing.assert_close(objective.values(points), whole[1])
    torch.testing.assert_close(objective.dual_gradients(whole[0], whole[2]), points)


def test_newton_shortens_steps_that_go_too_far() -> None:
    """x/√(1 + x²) from where whole steps diverge."""

    def slope(x: Tensor) -> tuple[Tensor, Tensor]:
        root = (1 + x.square()).sqrt()
        return x / root - 0.5, (1 / root**3)[:, :, None]

    start = torch.tensor([[-3.0], [0.0], [2.0], [20.0]], dtype=torch.float64)
    found = newton(slope, start)
    np.testing.assert_allclose(found, 3**-0.5, rtol=1e-14)


def test_far_away_nothing_overflows() -> None:
    objective = Logistic().objective(2)
    points = torch.full((2, 5), 1e6, dtype=torch.float64)
    assert gradients(objective, points).isfinite().all()
    assert np.isfinite(list(objective.measures(points).values())).all()


def test_on_another_device() -> None:
    for task in TASKS:
        objective = task.objective(2)
        moved = objective.to(torch.device("meta"))
        tensors = [value for value in vars(moved).values() if isinstance(value, Tensor)]
        assert len(tensors) > 1
        assert {each.device.type for each in tensors} == {moved.device.type} == {"meta"}
        assert moved.L == objective.L
        assert objective.to(torch.device("cpu")) is objective
        assert objective.optimum.device.type == "cpu"
    assert Consensus().objective(2).to(torch.device("meta")).device.type == "meta"


@pytest.mark.parametrize("kind", [Ridge, Logistic])
def test_data_depends_on_seed_and_worker_alone(kind: type[Any]) -> None:
    def share(seed: int, worker: int, workers: int) -> Tensor:
        return torch.cat([each.flatten() for each in kind(seed=seed).data(worker, workers).tensors])

    assert torch.equal(share(1, 2, 3), share(1, 2, 8))
    assert not torch.equal(share(1, 2, 3), share(2, 2, 3))
    assert not torch.equal(share(1, 2, 3), share(1, 1, 3))
    assert torch.equal(kind(seed=4).objective(3).optimum, kind(seed=4).objective(3).optimum)


def test_ridge_is_drawn_as_described() -> None:
    """Without noise each worker's own optimum is the common one, scaled by U(smallest, largest)."""
    objective = Ridge(noise=0, smallest=2.0, largest=3.0).objective(50)
    own = objective.dual_gradients(torch.zeros(50, 5, dtype=torch.float64), everyone(objective))
    scales = own / own[0]
    torch.testing.assert_close(scales, scales[:, :1].expand_as(scales))
    assert 1.2 < float(own[:, 0].max() / own[:, 0].min()) <= 1.5
    noisy = Ridge(noise=10.0, smallest=1.0, largest=1.0).objective(50)
    assert noisy.optimal_value == pytest.approx(100.0, rel=0.1)


def test_logistic_is_drawn_as_described() -> None:
    features, labels = Logistic(samples=4000, spread=0).data(0, 1).tensors
    centre = (features * labels[..., None]).mean((0, 1))
    np.testing.assert_allclose(centre.abs(), 1, atol=0.1)
    assert abs(float(labels.mean())) < 0.06


@pytest.mark.parametrize("name", ["ridge", "logistic"])
def test_trainers_descend(name: str) -> None:
    task = load(name, 3)
    trainer = Trainer(task, 0, 1, seed=0, batch_size=4)
    before = trainer.evaluate()
    for _ in range(200):
        trainer.step()
    after = trainer.evaluate()
    assert after["distance"] < 1e-3 * before["distance"]
    assert after["gap"] < 1e-3 * before["gap"]
    assert Layout.of(trainer.model).dtype == "float64"


def test_starts() -> None:
    points = starting_points(Ridge(), 4000, 0, "own")
    assert points.shape == (4000, 5)
    assert float(points.std()) == pytest.approx(1, abs=0.02)
    trainer = Trainer(Ridge(), 2, 4, seed=0, batch_size=1, init="own")
    assert torch.equal(points[2], torch.from_numpy(to_vector(trainer.model)))
    assert not starting_points(Logistic(start="zeros"), 3, 0, "own").any()
    assert len(starting_points(Ridge(), 3, 0, "common").unique(dim=0)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_data_that_is_no_number_is_refused(value: float) -> None:
    rng = np.random.default_rng(0)
    designs, targets = rng.normal(size=(4, 9, 3)), rng.choice([-1.0, 1.0], (4, 9))
    broken = designs.copy()
    broken[2, 5, 1] = value
    with pytest.raises(TaskError, match="the design of worker 2, row 5, holds NaN"):
        RidgeObjective(broken, targets)
    with pytest.raises(TaskError, match="the design of worker 2, row 5, holds NaN"):
        LogisticObjective(broken, targets)
    targets[3, 7] = value
    with pytest.raises(TaskError, match="the targets of worker 3, row 7, holds NaN"):
        RidgeObjective(designs, targets)
    H = np.stack([np.eye(2)] * 2)
    with pytest.raises(TaskError, match="the centre of worker 1, row 0, holds NaN"):
        Quadratic(H, [[0.0, 0.0], [value, 0.0]])


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: RidgeObjective(np.ones((2, 3, 1)), np.ones((2, 4))), r"\(2, 3, 1\).*\(2, 4\)"),
        (lambda: RidgeObjective(np.ones((2, 0, 1)), np.ones((2, 0))), "none of them empty"),
        (lambda: RidgeObjective(np.ones((1, 3, 2)), np.ones((1, 3))), "worker 0 .* l2 above 0"),
        (lambda: RidgeObjective(np.ones((1, 3, 1)), np.ones((1, 3)), -1.0), "l2 = -1.0"),
        (lambda: LogisticObjective(np.ones((1, 2, 1)), [[1.0, 0.0]]), "worker 0, row 1.*-1 or 1"),
        (lambda: LogisticObjective(np.ones((1, 2, 1)), np.ones((1, 2)), 0.0), "l2 = 0.0"),
        (lambda: Quadratic(np.ones((1, 2, 2)), np.ones((1, 3))), r"\(1, 2, 2\).*\(1, 3\)"),
        (lambda: Quadratic([[[1.0, 2.0], [0.0, 1.0]]], [[0.0, 0.0]]), "symmetric"),
        (lambda: Quadratic([[[1.0]], [[-1.0]]], [[0.0], [0.0]]), "worker 1 is not strongly"),
        (lambda: Ridge(samples=3).objective(2), "more samples than features"),
        (lambda: Ridge(features=0), "features = 0"),
        (lambda: Ridge(noise=float("nan")), "noise = nan"),
        (lambda: Ridge(smallest=6.0), "smallest = 6.0 above largest"),
        (lambda: Ridge(start="ones"), "start = 'ones'.*'normal' or 'zeros'"),
        (lambda: Logistic(l2=0.0), "l2 = 0.0"),
        (lambda: Logistic(l2=float("inf")), "l2 = inf"),
        (lambda: Logistic(spread=-1.0), "spread = -1.0"),
        (lambda: Consensus(size=0), "size = 0"),
        (lambda: Consensus(dtype="float16"), "dtype = 'float16'.*'float32' or 'float64'"),
        (lambda: Consensus().data(2, 2), "worker 2 of 2: expected 0 to 1"),
        (lambda: Ridge().data(-1, 2), "worker -1 of 2: expected 0 to 1"),
        (lambda: Ridge().objective(0), "workers = 0"),
        (lambda: Ridge().evaluate(Point(5)), "how many workers.*objective"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, complaint: str) -> None:
    with pytest.raises(TaskError, match=complaint):
        make()


def test_the_problem_follows_the_number_of_workers() -> None:
    task, model = Ridge(), Point(5, "zeros")
    assert task.objective(3) is task.objective(3)
    task.data(0, 3)
    three = task.evaluate(model)
    task.data(0, 5)
    assert task.evaluate(model) != three
    assert task.objective(3).measures(torch.zeros(1, 5)) == pytest.approx(three)
