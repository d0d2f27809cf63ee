"""Many models in one call: gradients, batches and norm statistics are those of each trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from decent.errors import TaskError
from decent.learning import Trainer, moments, recalibrate, to_vector
from decent.learning import stacked as module
from decent.learning.digits import Digits
from decent.learning.objective import starting_points
from decent.learning.stacked import Stacked

N, BATCH, SEED = 3, 4, 5


class Pictures:
    """Random pictures, 6 × 6, a few classes; each worker has another number of them."""

    name = "pictures"

    def __init__(self, *layers: str) -> None:
        self.layers = layers

    def model(self) -> nn.Module:
        made = {
            "norm": lambda: nn.BatchNorm2d(2),
            "frozen": lambda: nn.Conv2d(2, 2, 1).requires_grad_(False),
            "dropout": lambda: nn.Dropout(0.5),
        }
        inner = [made[layer]() for layer in self.layers if layer in made]
        if "alone" in self.layers:  # one parameter, which is the whole vector
            return nn.Sequential(nn.Conv2d(1, 3, 6, bias=False), nn.Flatten()).double()
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), *inner, nn.Tanh(), nn.Flatten(), nn.Linear(32, 3)
        ).double()

    def data(self, worker: int, workers: int) -> Dataset[Any]:
        random = torch.Generator().manual_seed(worker)
        count = 5 + 3 * worker
        x = torch.randn(count, 1, 6, 6, dtype=torch.float64, generator=random)
        data = TensorDataset(x, torch.randint(0, 3, (count,), generator=random))
        return Listed(data) if "listed" in self.layers else data

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        loss = cross_entropy(model(batch[0]), batch[1])
        if "item" in self.layers and loss.item() > 100:
            raise AssertionError
        return loss

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


class Listed(Dataset[Any]):
    """Samples one by one, their labels as plain numbers."""

    def __init__(self, inner: TensorDataset) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, k: int) -> Any:
        x, y = self.inner[k]
        return x, int(y)


class Coded:
    """A loss whose gradient at w[p, s] counts how often place p of the batch held sample s."""

    name = "coded"

    def __init__(self, samples: list[int]) -> None:
        self.samples = samples

    def model(self) -> nn.Module:
        model = nn.Linear(max(self.samples), BATCH, bias=False)
        return model.double()

    def data(self, worker: int, workers: int) -> Dataset[Any]:
        return TensorDataset(torch.eye(max(self.samples))[: self.samples[worker]].double())

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        return (next(model.parameters()) * batch[0]).sum()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def gradient(model: nn.Module) -> np.ndarray:
    """As a vector in the order of the layout."""
    parts = [p.grad.flatten() for p in model.parameters() if p.requires_grad and p.grad is not None]
    return torch.cat(parts).numpy()


def compare(task: Any, rounds: int = 9, tolerance: float = 1e-12) -> Stacked:
    """Workers in ever other subsets, beside their trainers, which take a step each time; their
    parameters lie close together or apart, as they do in an engine."""
    trainers = [Trainer(task, i, N, SEED, BATCH) for i in range(N)]
    objective = Stacked(task, N, SEED, BATCH)
    points = torch.stack([torch.from_numpy(to_vector(each.model)) for each in trainers])
    assert torch.equal(points, starting_points(task, N, SEED, "common"))
    assert objective.samples == [trainer.samples for trainer in trainers]
    assert (objective.n, objective.size, objective.dtype) == (N, points.shape[1], points.dtype)
    for k in range(rounds):
        workers = torch.tensor([[0, 1, 2], [2], [1, 0]][k % 3])
        slots = torch.stack([points[workers]] * (1 + k % 2), 1)
        found, losses = objective.gradients(slots[:, 0], workers, objective.draw(workers))
        for row, i in enumerate(workers.tolist()):
            assert losses is not None
            assert float(losses[row]) == pytest.approx(trainers[i].step(), rel=1e-6)
            expected = gradient(trainers[i].model)
            np.testing.assert_allclose(found[row], expected, rtol=0, atol=tolerance)
            points[i] = torch.from_numpy(to_vector(trainers[i].model))
    for i, trainer in enumerate(trainers):
        loaded = task.model()
        objective.load(i, points[i], loaded)
        for name, value in trainer.model.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], value)
    return objective


KINDS = [(), ("norm",), ("frozen",), ("listed", "norm")]


@pytest.mark.parametrize(
    ("layers", "often"),
    [*((kind, 100) for kind in KINDS), (("norm", "frozen"), 2), (("alone",), 1)],
)
def test_gradients_are_those_of_autograd(
    layers: tuple[str, ...], often: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not the operations are traced, at once or later."""
    monkeypatch.setattr(module, "OFTEN", often)
    assert not compare(Pictures(*layers), 12).one_by_one


@pytest.mark.parametrize("often", [1, 100])
@pytest.mark.parametrize("layers", [("item",), ("item", "norm")], ids="-".join)
def test_what_vmap_cannot_follow_is_taken_one_by_one(
    layers: tuple[str, ...], often: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OFTEN", often)
    assert compare(Pictures(*layers)).one_by_one


def test_digits_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OFTEN", 2)
    assert not compare(Digits(hidden=16), rounds=30, tolerance=1e-6).one_by_one


@pytest.mark.parametrize("samples", [[3, 3, 3], [1, 6, 4], [9, 2, 5]])
def test_batches_are_those_of_the_trainers(samples: list[int]) -> None:
    """Sample by sample and in order, also where a worker stands in a draw several times, and after
    some were skipped."""
    task = Coded(samples)
    trainers = [Trainer(task, i, N, SEED, BATCH) for i in range(N)]
    early, late = (Stacked(task, N, SEED, BATCH) for _ in range(2))
    order = torch.tensor([1, 0, 1, 2, 1, 0, 2])
    drawn = early.draw(order)
    late.skip(torch.tensor([1, 3, 0]))
    for row, i in enumerate(order.tolist()):
        (expected,) = trainers[i].next_batch()
        if row == 5:
            drawn[row] = late.draw(torch.tensor([0]))[0]
        points, one = torch.zeros(1, early.size).double(), torch.tensor([i])
        found, _ = early.gradients(points, one, drawn[row : row + 1])
        np.testing.assert_array_equal(found[0].view(BATCH, -1), expected)
    assert late.draw(torch.tensor([1])).shape == (1, BATCH)


def test_data_in_common_is_held_once() -> None:
    objective = Stacked(Digits(sharding="all", hidden=2), 50, SEED, BATCH)
    assert [len(column) for column in objective._columns] == [1400, 1400]
    assert objective.samples == [1400] * 50
    assert int(objective.draw(torch.arange(50)).max()) < 1400


@pytest.mark.parametrize("layers", [("dropout",), ("dropout", "item")], ids="-".join)
def test_chance_is_the_same_whenever_operations_are_traced(
    layers: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a run that goes on after a stop draws what it would have drawn; and workers and
    calls each draw their own."""

    def run(often: int) -> Tensor:
        monkeypatch.setattr(module, "OFTEN", often)
        objective, workers = Stacked(Pictures(*layers), N, SEED, BATCH), torch.arange(N)
        points = starting_points(Pictures(*layers), N, SEED, "common").clone()
        drawn = objective.draw(torch.zeros(1, dtype=torch.int64)).expand(N, -1)
        torch.manual_seed(1)
        return torch.stack([objective.gradients(points, workers, drawn)[0] for _ in range(6)])

    seldom = run(100)
    assert torch.equal(run(1), seldom)
    assert torch.equal(run(3), seldom)
    assert len({tuple(row) for row in seldom.flatten(0, 1).tolist()}) == 6 * N


@pytest.mark.parametrize("policy", ["average", "recalibrate", "local"])
def test_norm_statistics_are_merged_as_trainers_merge_theirs(policy: str) -> None:
    task, weights = Pictures("norm"), torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    trainers, workers = [Trainer(task, i, N, SEED, BATCH) for i in range(N)], torch.arange(N)
    objective = Stacked(task, N, SEED, BATCH)
    start = torch.stack([torch.from_numpy(to_vector(each.model)) for each in trainers])
    for trainer in trainers:
        trainer.optimizer.param_groups[0]["lr"] = 0.0
        trainer.step()
    objective.gradients(start, workers, objective.draw(workers))
    expected, found = moments(trainers[0].model), task.model()
    objective.load(0, start[0], found)
    if policy == "recalibrate":
        for trainer in trainers:
            recalibrate(trainer.model, trainer.batches(32), task.loss)
    if policy != "local":
        expected = np.average([moments(trainer.model) for trainer in trainers], 0, weights.numpy())
    objective.merge_norms(found, policy, weights)
    np.testing.assert_allclose(moments(found), expected, rtol=1e-9)
    np.testing.assert_array_equal(to_vector(found), start[0])


def test_state_is_all_that_has_to_be_kept() -> None:
    """A second objective, brought to where the first one is, goes on as the first does."""
    task, workers = Pictures("norm"), torch.tensor([0, 2])
    first, second = (Stacked(task, N, SEED, BATCH) for _ in range(2))
    points = starting_points(task, 2, SEED, "common").clone()
    for _ in range(3):
        first.gradients(points, workers, first.draw(workers))
    second.skip(torch.tensor([3, 0, 3]))
    for name, live in second.state().items():
        live.copy_(first.state()[name])
    for _ in range(2):
        one, other = (
            each.gradients(points, workers, each.draw(workers)) for each in (first, second)
        )
        assert torch.equal(one[0], other[0])
        assert one[1] is not None
        assert other[1] is not None
        assert torch.equal(one[1], other[1])
    assert all(torch.equal(live, first.state()[name]) for name, live in second.state().items())


def test_samples_that_are_no_tensors_are_refused() -> None:
    class Named(Pictures):
        def data(self, worker: int, workers: int) -> Dataset[Any]:
            return [{"x": 1.0}, {"x": 2.0}]  # type: ignore[return-value]

    with pytest.raises(TaskError, match=r'worker 0 in task .*dict.*tuples.*fidelity = "network"'):
        Stacked(Named(), N, SEED, BATCH)


def test_an_error_of_the_task_itself_is_passed_on() -> None:
    class Broken(Pictures):
        def loss(self, model: nn.Module, batch: Any) -> Tensor:
            raise RuntimeError("no such column")

    objective = Stacked(Broken(), N, SEED, BATCH)
    points, workers = starting_points(Broken(), N, SEED, "common").clone(), torch.arange(N)
    with pytest.raises(RuntimeError, match="no such column"):
        objective.gradients(points, workers, objective.draw(workers))
