"""Whole runs: what is recorded, and that a run that was stopped goes on as if it never was."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from decent import config as configs
from decent.config import Config
from decent.errors import ConfigError
from decent.folder import Journal
from decent.learning.ridge import Quadratic
from decent.simulation.ideal import engine as engines
from decent.simulation.ideal.run import Run, simulate

COMMON = ("simulation.fidelity=ideal", "simulation.records=6", "steps=24", "seed=2")
RIDGE = ("task=ridge", "workers=4", "dynamics=dadao", "init=own", "topology.rate=3.0")
DIGITS = ("task=digits", "workers=3", "task.hidden=8", "batch_size=4", "topology.rate=1.0")
NOISY = '''
"""Dropout and norm statistics: everything that a checkpoint has to keep."""
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

class Noisy:
    name = "noisy"
    def __init__(self, followed: bool = True):
        self.followed = followed
    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
    def data(self, worker, workers):
        random = torch.Generator().manual_seed(worker)
        x = torch.randn(11, 4, generator=random)
        return TensorDataset(x, torch.randint(0, 3, (11,), generator=random))
    def loss(self, model, batch):
        loss = cross_entropy(model(batch[0]), batch[1])
        return loss if self.followed or loss.item() < 1e9 else 0 * loss
    def evaluate(self, model):
        x, y = self.data(99, 100).tensors
        model.eval()
        return {"loss": cross_entropy(model(x), y).item()}
'''
KINDS = {
    "dadao, replicas": (*RIDGE, "simulation.replicas=3", "simulation.gradients=poisson"),
    "momentum": ("task=ridge", "workers=4", "optimizer.lr=0.01", "optimizer.momentum=0.8"),
    "star": ("task=ridge", "workers=12", "topology.name=star", "topology.rate=2.0"),
    "any task, Adam": (*DIGITS, "optimizer=Adam", "schedule=periodic", "init=own"),
    "window": (*DIGITS, "schedule.name=window", "schedule.start=0.3", "dynamics=gossip"),
    "dropout, norm": ("task=noisy.py:Noisy", "workers=3", "batch_size=4", "topology.rate=1.0"),
    "one by one": ("task.name=noisy.py:Noisy", "task.followed=false", "workers=3", "batch_size=4"),
    "consensus": ("task=consensus", "task.size=5", "workers=6", "init=own", "topology.rate=2.0"),
}


@pytest.fixture(autouse=True)
def _somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with a task, and with windows so short that a run has many."""
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "WINDOW", (20, 20))


def described(*overrides: str) -> Config:
    return configs.load(None, [*COMMON, *overrides])


class Stop:
    """Raises at the k-th window."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.left, self.error = at, error

    def __call__(self, statuses: list[dict[str, Any]]) -> None:
        self.left -= 1
        if not self.left:
            raise self.error


def check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    """To the bit, in memory and in the folders `whole` and `part`."""
    assert one["curve"] == other["curve"]
    assert json.dumps(one["results"]) == json.dumps(other["results"])
    assert one["merged"] == other["merged"]
    assert Path("whole/curve.jsonl").read_text() == Path("part/curve.jsonl").read_text()
    models = [load_file(Path(name, "merged.safetensors")) for name in ("whole", "part")]
    assert models[0].keys() == models[1].keys()
    assert all(bool((models[0][name] == models[1][name]).all()) for name in models[0])


@pytest.mark.parametrize("stop", [1, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_interrupted_goes_on(kind: str, stop: int) -> None:
    config = described(*KINDS[kind])
    whole = simulate(config, Path("whole"))
    first = simulate(
        config, Path("part"), checkpoint_every=1e9, on_status=Stop(stop, KeyboardInterrupt())
    )
    assert first["interrupted"]
    assert first["merged"] == {}
    assert first["curve"] == whole["curve"][: len(first["curve"])]
    assert first["ideal"]["events"] < whole["ideal"]["events"]
    again = simulate(config, Path("part"), resume=True)
    check_same(whole, again)


def test_a_run_may_be_stopped_again_and_again() -> None:
    config = described(*KINDS["star"])
    whole, found, resume, left = simulate(config, Path("whole")), dict[str, Any](), False, 0
    for _ in range(100):
        watch = Stop(2, KeyboardInterrupt())
        found = simulate(config, Path("part"), checkpoint_every=1e9, on_status=watch, resume=resume)
        if not found["interrupted"]:
            break
        left += len(load_file(Path("part/checkpoint.safetensors"))["left.time"])
        resume = True
    assert left > 0  # events that were planned, and had to be kept
    check_same(whole, found)


def crash(at: int, error: BaseException) -> Callable[..., Any]:
    """Gradients that fail at the k-th call: in the middle of a window."""
    plain, left = Quadratic.gradients, [at]

    def gradients(self: Quadratic, *arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise error
        return plain(self, *arguments)

    return gradients


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError()], ids=lambda each: repr(each))
def test_what_ends_in_the_middle_of_a_window_leaves_the_last_checkpoint(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C does not wait for the window's end: half a window is not kept."""
    config = described(*KINDS["momentum"])
    whole = simulate(config, Path("whole"))
    with monkeypatch.context() as patched:
        patched.setattr(Quadratic, "gradients", crash(20, error))
        try:
            outcome = simulate(config, Path("part"), checkpoint_every=2.0)
        except MemoryError:
            outcome = {"interrupted": True}
        assert outcome["interrupted"]
    check_same(whole, simulate(config, Path("part"), resume=True))


def test_checkpoints_are_as_far_apart_as_asked() -> None:
    config, seen = described(*KINDS["momentum"]), dict[int, float]()

    def watch(statuses: list[dict[str, Any]]) -> None:
        if (path := Path("part/checkpoint.safetensors")).exists():
            seen.setdefault(path.stat().st_mtime_ns, statuses[0]["time"])

    simulate(config, Path("part"), checkpoint_every=6.0, on_status=watch)
    assert 2 <= len(seen) <= 4
    simulate(config, Path("without"))
    assert not Path("without/checkpoint.safetensors").exists()


def test_another_runs_checkpoint_is_refused() -> None:
    config = described(*KINDS["momentum"])
    with pytest.raises(ConfigError, match=r"nowhere.*checkpoint of a run.*--checkpoint-every"):
        simulate(config, Path("nowhere"), resume=True)
    simulate(config, Path("part"), checkpoint_every=1.0)
    with pytest.raises(ConfigError, match="this very configuration"):
        simulate(described(*KINDS["momentum"], "seed=3"), Path("part"), resume=True)
    file = Path("part/checkpoint.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ConfigError, match=r"part/checkpoint\.safetensors.*a checkpoint of a run"):
        simulate(config, Path("part"), resume=True)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_go_from_the_start_to_the_end(kind: str) -> None:
    config = described(*KINDS[kind])
    outcome = simulate(config, Path("whole"))
    curve, last = outcome["curve"], outcome["ideal"]["last"]
    assert list(map(json.loads, Path("whole/curve.jsonl").read_text().splitlines())) == curve
    times = [point["time"] for point in curve]
    assert times[0] == 0
    assert all(earlier < later for earlier, later in pairwise(times))
    assert len(curve) >= 7
    assert curve[-1] == last
    assert curve[0]["gradients"] == curve[0]["exchanges"] == 0
    n, replicas = config.workers or 0, config.simulation.replicas
    ideal, steps = outcome["ideal"], [each["steps"] for each in outcome["results"]]
    assert ideal["gradients"] == round(last["gradients"] * n * replicas)
    assert ideal["exchanges"] == round(last["exchanges"] * replicas) > 0
    assert ideal["events"] == ideal["gradients"] + ideal["exchanges"]
    if replicas == 1:
        assert sum(steps) == ideal["gradients"]
        assert sum(each["stats"]["started"] for each in outcome["results"]) == ideal["exchanges"]
    if kind == "consensus":
        assert steps == [0] * 6
        assert last["consensus"] < 0.2 * curve[0]["consensus"]
    elif config.simulation.gradients == "paced":
        assert steps == [24] * n


def test_replicas_are_runs_of_their_own_and_their_mean_is_recorded() -> None:
    kind = KINDS["dadao, replicas"]
    found = simulate(described(*kind, "task.seed=5"))
    alone = [
        simulate(described(*kind, "simulation.replicas=1", "task.seed=5", f"seed={seed}"))
        for seed in (2, 3, 4)
    ]
    for k, point in enumerate(found["curve"]):
        for name in ("distance", "consensus", "gap"):
            each = [run["curve"][k][name] for run in alone]
            mean = sum(each) / 3
            spread = (sum((value - mean) ** 2 for value in each) / 2 / 3) ** 0.5
            assert point[name] == pytest.approx(mean, rel=1e-9)
            assert point[f"{name}_error"] == pytest.approx(spread, rel=1e-6, abs=1e-9)
    assert found["ideal"]["events"] == sum(run["ideal"]["events"] for run in alone)


def test_equal_seeds_give_equal_runs_and_torchs_generator_is_free() -> None:
    config = described(*KINDS["dropout, norm"])
    first, second = simulate(config), simulate(config)
    other = simulate(described(*KINDS["dropout, norm"], "seed=9"))
    assert first["curve"] == second["curve"] != other["curve"]


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    simulate(described(*KINDS["momentum"]), checkpoint_every=1.0)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py"] in (
        [],
        ["__pycache__"],
    )
    Journal(None).close()
    assert Run(described(*KINDS["momentum"]), None).curve == []
