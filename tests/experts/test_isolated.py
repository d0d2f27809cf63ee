"""Trainings of an ensemble's folder: alone, beside each other, killed, interrupted, and again."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decent import config, launcher
from decent.errors import ConfigError, InputError
from decent.experts import isolated, settings, store, work
from decent.experts.evaluation import evaluate, router_report
from decent.experts.partition import partition

NAMES = ["expert_0", "expert_1", "expert_2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three experts on points around three places."""
    rng = np.random.default_rng(0)
    x = (
        rng.normal(size=(300, 4)).astype(np.float32)
        + 6 * np.eye(4, dtype=np.float32)[rng.integers(3, size=300)]
    )
    np.save(tmp_path / "x.npy", x)
    chosen = settings.load(None, [
        f"data.source={tmp_path / 'x.npy'}", "data.latent=none", "data.validation=0.2",
        "partition.experts=3", "partition.fine=6", "partition.features=latent",
        "expert.steps=40", "expert.batch_size=8", "router.steps=40", "router.batch_size=16",
    ])  # fmt: skip
    partition(chosen, tmp_path / "ensemble")
    return tmp_path / "ensemble"


def labelled() -> tuple[np.ndarray, np.ndarray]:
    """Points around two places, 3 to 1, whose labels tell the place but for a fifth of them."""
    rng = np.random.default_rng(1)
    place = (rng.random(800) < 0.25).astype(np.int64)
    labels = np.where(rng.random(800) < 0.2, 1 - place, place)
    x = rng.normal(size=(800, 3)) + 6 * place[:, None]
    return x.astype(np.float32), labels


def lengthen(folder: Path, steps: int) -> None:
    path = folder / settings.FILE
    path.write_text(path.read_text().replace("steps = 40", f"steps = {steps}", 1))


def digests(folder: Path) -> dict[str, str]:
    return {name: record.digest for name, record in store.trained(folder, 3).items()}


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_an_expert_is_the_same_whoever_trains_beside_it(folder: Path) -> None:
    for name in reversed(NAMES):
        work.train(folder, name)
    alone = digests(folder)
    records = store.trained(folder, 3)
    assert records["expert_1"].steps == 40
    assert records["expert_1"].multiply_adds
    statuses = isolated.train(folder, NAMES, parallel=2, again=True)
    assert [each["state"] for each in statuses] == ["done"] * 3
    assert digests(folder) == alone
    assert isolated.train(folder, NAMES) == []
    assert not any((folder / "training").iterdir())


def test_one_killed_leaves_the_others_and_goes_on(folder: Path) -> None:
    lengthen(folder, 600)
    killed: list[int] = []

    def kill(statuses: list[dict[str, Any]]) -> None:
        for each in statuses:
            if each["name"] == "expert_1" and each["step"] and not killed:
                killed.append(each["pid"])
                os.kill(each["pid"], signal.SIGKILL)

    statuses = {each["name"]: each for each in isolated.train(folder, NAMES, 3, on_status=kill)}
    assert killed
    assert statuses["expert_1"]["state"] == "failed"
    assert "SIGKILL" in statuses["expert_1"]["what"]
    assert sorted(digests(folder)) == ["expert_0", "expert_2"]
    assert [each["name"] for each in isolated.train(folder, NAMES)] == ["expert_1"]
    resumed = digests(folder)
    work.train(folder, "expert_1", again=True)
    assert digests(folder) == resumed


@pytest.mark.parametrize("victim", [None, 1])
def test_the_workers_of_one_launch_make_the_same(
    folder: Path, tmp_path: Path, victim: int | None
) -> None:
    """As many as experts; one that is killed goes on by itself, and nobody else notices."""
    lengthen(folder, 3000)
    killed, seen = [], []

    def act(statuses: list[dict[str, Any]]) -> None:
        seen.append([each["pid"] for each in statuses])
        if victim is not None and not killed and statuses[victim]["step"] > 200:
            killed.append(statuses[victim]["pid"])
            os.kill(statuses[victim]["pid"], signal.SIGKILL)

    chosen = config.load(None, [
        "task.name=decent.experts.task:Expert", f"task.folder={folder}", "workers=3", "steps=3000",
        "batch_size=8", "schedule=never", "merge=apart", "runtime.restarts=1",
        "runtime.checkpoint_every=100", "seed=5",
    ])  # fmt: skip
    outcome = launcher.launch(chosen, tmp_path / "run", on_status=act)
    assert outcome["faults"] == []
    assert [each["worker"] for each in outcome["restarts"]] == ([] if victim is None else [victim])
    assert [len({pids[me] for pids in seen}) for me in range(3)] == [
        1 + (me == victim) for me in range(3)
    ]
    taken = [each["checkpoints"]["taken"] for each in outcome["results"]]
    assert [count < 30 for count in taken] == [me == victim for me in range(3)]
    assert outcome["merged"] == {}
    assert all(each["metrics"]["loss"] > 0 for each in outcome["results"])
    launched = digests(folder)
    for name in NAMES:
        work.train(folder, name, again=True)
    assert digests(folder) == launched


def test_an_interruption_stops_all_with_checkpoints(folder: Path) -> None:
    lengthen(folder, 100_000)

    def interrupt(statuses: list[dict[str, Any]]) -> None:
        if all(each["step"] for each in statuses):
            raise KeyboardInterrupt

    begun_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        isolated.train(folder, NAMES[:2], 2, on_status=interrupt)
    assert time.monotonic() - begun_s < isolated.GRACE_S + 30
    for name in NAMES[:2]:
        assert work.checkpoint(folder, name).is_file()
        assert not work.finished(folder, name)


def test_bad_input_is_the_users(folder: Path) -> None:
    path = folder / settings.FILE
    path.write_text(path.read_text().replace('start = ""', 'start = "nowhere"', 1))
    with pytest.raises(InputError, match="nowhere"):
        isolated.train(folder, NAMES[:1])
    with pytest.raises(ConfigError, match="expert_3"):
        work.train(folder, "expert_3")


@pytest.mark.parametrize("balanced", [False, True])
def test_router_dense_student_and_their_losses(folder: Path, balanced: bool) -> None:
    path = folder / settings.FILE
    path.write_text(
        path.read_text().replace("balanced = false", f"balanced = {str(balanced).lower()}")
    )
    for name in (*NAMES, "router", "dense", "student"):
        work.train(folder, name)
    report = router_report(folder)
    assert len(report["rows"]) == 10
    assert report["rows"][0]["accuracy"] > 0.9
    router, record = store.load(folder / "router")
    assert record.outputs == 3
    if balanced:
        pi = torch.tensor(store.open_pipeline(folder).pi)
        torch.testing.assert_close(router.log_prior, pi.log())
    found = evaluate(folder, ["full", "top_k:1"])
    assert [row["name"] for row in found["rows"]] == ["dense", "student", "full", "top_k:1"]
    assert [row["active"] for row in found["rows"]] == [1, 1, 3, 1]
    assert found["rows"][0]["difference"] is None
    options = work.Options(from_experts=60)
    assert work.train(folder, "router", again=True, options=options).outputs == 3


def test_a_common_start(folder: Path) -> None:
    work.train(folder, "expert_0")
    path = folder / settings.FILE
    started = folder / "expert_0"
    path.write_text(path.read_text().replace('start = ""', f'start = "{started}"', 1))
    first, second = (
        work.initial(work.prepared(folder, name), name) for name in ("expert_1", "expert_2")
    )
    common = store.load(started)[0].state_dict()
    for module in (first, second):
        assert all(torch.equal(module.state_dict()[name], common[name]) for name in common)


def test_a_router_with_labels_needs_no_data(tmp_path: Path) -> None:
    """Near t = 1 it knows p(k | c) of the data, though it has seen the experts' samples alone."""
    chosen = settings.load(None, [
        f"data.source={__file__}:labelled", "data.latent=none", "data.conditional=true",
        "partition.experts=2", "partition.fine=4", "partition.features=latent",
        "partition.balance=inf", "expert.steps=30", "router.steps=300", "router.ema=0.95",
    ])  # fmt: skip
    found = partition(chosen, tmp_path / "ensemble")
    for name in NAMES[:2]:
        work.train(tmp_path / "ensemble", name)
    options = work.Options(from_experts=3000)
    record = work.train(tmp_path / "ensemble", "router", options=options)
    assert (record.classes, record.outputs) == (2, 2)
    router = store.load(tmp_path / "ensemble" / "router")[0]
    counts = torch.tensor(found.label_counts).double()
    noise = torch.randn(4096, 3, generator=torch.Generator().manual_seed(0))
    for c, expected in [(-1, counts.sum(1)), (0, counts[:, 0]), (1, counts[:, 1])]:
        with torch.no_grad():
            logits = router(noise, torch.full((4096,), 0.999), torch.full((4096,), c))
        mean = logits.double().softmax(1).mean(0)
        torch.testing.assert_close(mean, expected / expected.sum(), atol=0.08, rtol=0)


def test_a_manifest_without_counts_is_told(folder: Path) -> None:
    for name in NAMES:
        work.train(folder, name)
    path = folder / settings.FILE
    path.write_text(path.read_text().replace("conditional = false", "conditional = true"))
    with pytest.raises(ConfigError, match="counts no labels: expected label_counts"):
        work.prepared(folder, "router", work.Options(from_experts=10))
