"""Tasks by name, their options, and the ready ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from decent.errors import TaskError
from decent.learning import Trainer, all_reduce, to_vector
from decent.learning import task as tasks
from decent.learning.digits import Digits
from decent.learning.objective import starting_points

FILE = '''
class Line:
    """A line through points."""
    name = "line"
    def __init__(self, slope: float = 1.0, points: int = 8, label: str = "x"): self.slope = slope
    def model(self): ...
    def data(self, worker, workers): ...
    def loss(self, model, batch): ...
    def evaluate(self, model): return {"slope": self.slope}

def line(**options): return Line(**options)
def needy(slope): return Line(slope)
ready = Line(3.0)
class Half:
    name = "half"
    def model(self): ...
    def loss(self, model, batch): ...
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("attribute", "options", "slope"),
    [
        ("Line", {}, 1.0),
        ("Line", {"slope": 2}, 2),
        ("line", {"slope": 2.5}, 2.5),
        ("ready", {}, 3.0),
    ],
)
def test_tasks_of_the_users_own(
    file: str, attribute: str, options: dict[str, Any], slope: float
) -> None:
    assert tasks.load(f"{file}:{attribute}", **options).evaluate(nn.Identity()) == {"slope": slope}


def test_tasks_by_module() -> None:
    task = tasks.load("decent.learning.digits:Digits", hidden=5)
    assert isinstance(task, Digits)
    assert task.hidden == 5


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("digit", {}, "Did you mean 'digits'"),
        ("digits", {"hiden": 5}, "option 'hiden'.*alpha, hidden, lr, seed"),
        ("digits", {"hidden": "wide"}, "hidden = 'wide'.*type int"),
        ("digits", {"hidden": True}, "hidden = True.*type int"),
        ("digits", {"alpha": -1}, "alpha = -1"),
        ("digits", {"lr": float("nan")}, "lr = nan"),
        ("digits", {"sharding": "some"}, "sharding = 'some'.*'dirichlet', 'uniform', 'all'"),
        ("FILE:Half", {}, "lacks data, evaluate"),
        ("FILE:needy", {}, "missing a required argument: 'slope'"),
        ("FILE:ready", {"slope": 1.0}, "made already"),
        ("FILE:absent", {}, "no attribute.*absent"),
        ("nowhere.py:Task", {}, "no file .*nowhere.py"),
        ("no_such_module:Task", {}, "cannot be loaded.*no_such_module"),
        ("fashion-mnist", {"norm": "layer"}, 'norm = .*"group" or "batch"'),
        ("fashion-mnist", {"path": "/nowhere"}, "no train-images.*apt-get install.*path="),
    ],
)
def test_what_is_no_task_is_refused(
    file: str, name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(TaskError, match=complaint):
        tasks.load(name.replace("FILE", file), **options)


def test_a_file_that_fails_says_how(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("1 / 0")
    with pytest.raises(TaskError, match="ZeroDivisionError"):
        tasks.load(f"{tmp_path}/bad.py:Task")


def test_the_list_shows_options_and_state() -> None:
    entries = {entry.name: entry for entry in tasks.available()}
    assert set(entries) == set(tasks.BUILT_IN)
    options = {"alpha": 0.1, "hidden": 128, "lr": 0.1, "seed": 0, "sharding": "dirichlet"}
    assert entries["digits"].options == options
    assert entries["digits"].status == "ready"
    assert all(entry.description for entry in entries.values())


def test_digits() -> None:
    task = Digits()
    assert [tuple(t.shape) for t in (*task.train, *task.test)] == [
        (1400, 64),
        (1400,),
        (397, 64),
        (397,),
    ]
    assert task.train.X.min() == -1
    assert task.train.X.max() == 1
    assert sum(len(task.data(k, 8)) for k in range(8)) == 1400
    assert torch.equal(Digits().test.X, task.test.X)
    assert not torch.equal(Digits(seed=1).test.X, task.test.X)
    with pytest.raises(TaskError, match="worker 8 of 8: expected 0 to 7"):
        task.data(8, 8)


def test_evaluation_leaves_every_flag() -> None:
    model = nn.Sequential(nn.Linear(64, 10), nn.Dropout(0.5))
    model[1].eval()
    first, second = Digits().evaluate(model), Digits().evaluate(model)
    assert first == second
    assert set(first) == {"accuracy", "loss"}
    assert [module.training for module in model.modules()] == [True, True, False]


def test_digits_are_learnt_in_lockstep() -> None:
    task = Digits(seed=2)
    trainers = [Trainer(task, worker, 8, seed=0, batch_size=16) for worker in range(8)]
    assert all_reduce(trainers, steps=1000)["accuracy"] >= 0.95


def test_digits_for_all_are_in_the_same_memory() -> None:
    task = Digits(sharding="all")
    for worker in (0, 4095):
        X, y = task.data(worker, 4096).tensors
        assert X.data_ptr() == task.train.X.data_ptr()
        assert y.data_ptr() == task.train.y.data_ptr()
        assert len(X) == len(y) == 1400


def test_digits_in_even_shares() -> None:
    task = Digits(sharding="uniform")
    assert [len(task.data(worker, 8)) for worker in range(8)] == [175] * 8


def test_shards_are_dealt_once_for_each_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    task, dealt = Digits(), []
    whole = Digits.shards
    monkeypatch.setattr(Digits, "shards", lambda self, n: dealt.append(n) or whole(self, n))
    sizes = [len(task.data(worker, n)) for n in (4, 8) for worker in range(n)]
    assert dealt == [4, 8]
    assert (sum(sizes[:4]), sum(sizes[4:])) == (1400, 1400)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_consensus_has_nothing_to_learn(dtype: str) -> None:
    task: Any = tasks.load("consensus", size=500, dtype=dtype)
    objective = task.objective(4)
    assert objective.without_gradients
    assert (objective.n, objective.size, str(objective.dtype)) == (4, 500, f"torch.{dtype}")
    trainer = Trainer(task, 2, 4, seed=0, batch_size=1, init="own")
    start = starting_points(task, 4, 0, "own")
    assert trainer.step() == 0
    assert torch.equal(start[2], torch.from_numpy(to_vector(trainer.model)))
    assert trainer.evaluate()["mean_square"] == pytest.approx(1, abs=0.2)
    assert objective.measures(start) == {}
    assert not objective.gradients(start, torch.arange(4), torch.arange(4))[0].any()
