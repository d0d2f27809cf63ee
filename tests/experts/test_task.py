"""Several workers share one expert, and the merged model is stored in the ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decent import config, launcher
from decent.errors import ConfigError, TaskError
from decent.experts import settings, store
from decent.experts.partition import partition
from decent.experts.task import Expert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32) + 5 * rng.integers(2, size=(200, 1))
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    chosen = settings.load(None, [
        f"data.source={tmp_path / 'x.npy'}", "data.latent=none", "data.validation=0.2",
        "partition.experts=2", "partition.fine=4", "partition.features=latent",
    ])  # fmt: skip
    partition(chosen, tmp_path / "ensemble")
    return tmp_path / "ensemble"


def test_the_workers_divide_the_samples_of_the_cluster(folder: Path) -> None:
    task = Expert(str(folder), 1)
    shares = [task.data(worker, 3).tensors[0] for worker in range(3)]
    together = torch.cat(shares)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, task._flow.x.tolist()))
    with pytest.raises(TaskError, match="expert 2"):
        Expert(str(folder), 2)


def test_two_workers_make_one_expert(folder: Path, tmp_path: Path) -> None:
    chosen = config.load(None, [
        "task.name=decent.experts.task:Expert", f"task.folder={folder}", "task.expert=1",
        "workers=2", "steps=30", "topology.rate=0.2",
    ])  # fmt: skip
    outcome = launcher.launch(chosen, tmp_path / "run")
    assert outcome["faults"] == []
    module, record = store.load(folder / "expert_1")
    assert record.steps == 30
    task = Expert(str(folder), 1)
    assert task.evaluate(module)["loss"] == pytest.approx(outcome["merged"]["loss"], rel=1e-4)
    assert not (folder / "expert_0").exists()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["merge=apart", "schedule=never", "workers=3"], "3 workers for the 2 experts"),
        (["merge=apart", "schedule=never", "workers=2", "task.expert=1"], "task.expert = 1"),
        (["merge=apart", "schedule=never", "workers=2", "optimizer=SGD"], r"\[optimizer\]"),
        (["workers=2"], "task.expert is not given.*'never' and merge = 'apart'"),
    ],
)
def test_one_expert_for_all_or_one_for_each(
    folder: Path, tmp_path: Path, settings: list[str], complaint: str
) -> None:
    task = ["task.name=decent.experts.task:Expert", f"task.folder={folder}"]
    with pytest.raises(ConfigError, match=complaint.replace("'", "[\"']")):
        launcher.launch(config.load(None, [*task, *settings]), tmp_path / "run")
