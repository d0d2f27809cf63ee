"""Checkpoints as files; and a training process that goes on exactly where it was."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decent import dynamics
from decent.config import Config, RuntimeTable
from decent.errors import ConfigError, ModelError
from decent.learning import Trainer
from decent.runtime import checkpoint
from decent.runtime.checkpoint import Checkpoints, Writer, lines
from decent.runtime.gossip import Gossip
from decent.runtime.world import World
from decent.schedule import Poisson
from decent.testing import Network, cluster
from decent.topology import Link, family
from decent.worker import Span, StepClock

EVERY = RuntimeTable(checkpoint_every=7)


def world(folder: Path, span: Span | None = None) -> World:
    return World(folder=folder, config=Config(workers=1, runtime=EVERY), span=span)


# a process alone, to the bit


class Killed(Exception):
    pass


def script(where: World, steps: int = 40, until: int = 99) -> list[torch.Tensor]:
    """Dropout, Adam, a scheduler, batch norm, and all three generators."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model = torch.nn.Sequential(
        torch.nn.Linear(5, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps)
    with Gossip(model, optimizer, steps=steps, world=where) as gossip:
        gossip.keep(scheduler=scheduler)
        assert gossip.resumed == (where.span is not None)
        for step in range(gossip.steps, steps):
            if step == until:
                gossip._metrics.flush()
                raise Killed
            x = torch.randn(6, 5) + random.random() + float(np.random.normal())
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            scheduler.step()
            gossip.step(loss=loss.item())
    return [*model.parameters(), *model.buffers()]


def newest(folder: Path) -> Span:
    return lines(folder, 1)[0]


def test_a_script_goes_on_to_the_bit(tmp_path: Path) -> None:
    whole = script(world(tmp_path / "whole"))
    folder = tmp_path / "broken"
    with pytest.raises(Killed):
        script(world(folder), until=25)
    assert newest(folder) == Span(2, 3)
    with pytest.raises(Killed):
        script(world(folder, newest(folder)), until=34)
    assert newest(folder) == Span(3, 4)
    again = script(world(folder, newest(folder)))
    for ours, theirs in zip(again, whole, strict=True):
        assert torch.equal(ours, theirs)
    written = [(tmp_path / name / "workers/0/metrics.jsonl").read_text() for name in
               ("whole", "broken")]  # fmt: skip
    assert written[0] == written[1]
    result = json.loads((folder / "workers/0/result.json").read_text())
    assert result["checkpoints"]["taken"] == 1
    assert result["checkpoints"]["max_ms"] >= result["checkpoints"]["median_ms"] > 0
    assert [span.cut for span in Checkpoints(folder, 0, 1).spans()] == [4, 5]


def test_a_trainer_goes_on_with_the_same_batches(tmp_path: Path) -> None:
    config = Config(workers=3)
    whole = Trainer.of(config, 1, 3)
    losses = [whole.step() for _ in range(30)]
    first = Trainer.of(config, 1, 3)
    assert [first.step() for _ in range(17)] == losses[:17]
    second = Trainer.of(config, 1, 3)
    second.load_state_dict(first.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert [second.step() for _ in range(13)] == losses[17:]


def alone(folder: Path, span: Span | None = None) -> tuple[Gossip, torch.nn.Module]:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Gossip(model, optimizer, world=world(folder, span)), model


class Holds:
    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return {"inner": [self.value]}

    def load_state_dict(self, state: Any) -> None:
        self.value = state["inner"][0]


@pytest.mark.parametrize("value", [np.zeros(3), object(), {1, 2}, lambda: 0])
def test_what_could_not_be_read_again_is_refused_at_once(tmp_path: Path, value: Any) -> None:
    gossip, _ = alone(tmp_path)
    gossip.keep(odd=Holds(value))
    for _ in range(6):
        gossip.step()
    with pytest.raises(ModelError, match=r"odd\.inner holds a "):
        gossip.step()
    gossip.close()


@pytest.mark.parametrize(
    "value", [3, 2.5, "text", None, True, torch.arange(3), (1, "a"), {"k": [b"x"]}, np.float64(2)]
)
def test_what_is_kept_comes_back(tmp_path: Path, value: Any) -> None:
    gossip, _ = alone(tmp_path)
    gossip.keep(it=Holds(value))
    for _ in range(7):
        gossip.step()
    gossip.close()
    again, _ = alone(tmp_path, newest(tmp_path))
    held = Holds(None)
    again.keep(it=held)
    assert torch.equal(held.value, value) if torch.is_tensor(value) else held.value == value
    with pytest.raises(ConfigError, match="a second time"):
        again.keep(it=held)
    with pytest.raises(ConfigError, match=r"keep\(other=…\), and the checkpoint has none"):
        again.keep(other=held)
    again.close()


def test_none_without_being_asked(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    where = World(folder=tmp_path, config=Config(workers=1))
    with Gossip(model, torch.optim.SGD(model.parameters(), lr=1), world=where) as gossip:
        for _ in range(50):
            gossip.step()
    assert not list(tmp_path.rglob("checkpoints"))


# files


def test_a_snapshot_in_a_file(tmp_path: Path) -> None:
    graph = family("ring", 4, rate=1.0)
    c = cluster(
        graph, dynamics.Acid(), Poisson(), 20, steps=30, learner=lambda w: None, clock=StepClock,
        network=Network(graph, Link(0.4)), checkpoint_every=4, ledgers={},
    )  # fmt: skip
    c.run(18.0)
    tree = next(own[-1] for own in c.saved.values() if own[-1]["open"])
    tree["small"] = [np.arange(3, dtype="f4"), np.zeros((2, 0)), np.float64(1).item(), -np.inf]
    path = tmp_path / "a" / "b"
    checkpoint.write(path, tree)
    assert same(checkpoint.read(path), tree)
    assert checkpoint.seconds(path) == tree["s"]
    assert [file.name for file in path.parent.iterdir()] == ["b"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "gone"])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x"
    checkpoint.write(path, {"s": 1.0, "a": np.ones(100)})
    whole = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(whole[:-8])
        case "empty":
            path.write_bytes(b"")
        case "other":
            path.write_bytes(whole.replace(b"tree", b"treX"))
        case "gone":
            path.unlink()
    with pytest.raises(ModelError, match="a checkpoint that can be read"):
        checkpoint.read(path)


def touch(run: Path, me: int, *names: str) -> Checkpoints:
    files = Checkpoints(run, me, 2)
    files.home.mkdir(parents=True, exist_ok=True)
    for name in names:
        (files.home / name).write_text("")
    return files


def both(*spans: tuple[int, int]) -> list[str]:
    return [
        f"{since:08d}-{cut:08d}.{suffix}"
        for since, cut in spans
        for suffix in ("gossip.safetensors", "training.pt")
    ]


def test_complete_ones_alone_count(tmp_path: Path) -> None:
    files = touch(tmp_path, 0, *both((0, 1), (1, 2), (2, 4))[:-1], ".tmp", "notes.txt")
    assert files.spans() == [Span(0, 1), Span(1, 2)]
    touch(tmp_path, 1, *both((0, 2), (2, 3)))
    assert lines(tmp_path, 2) == {0: Span(1, 2), 1: Span(0, 2)}
    files.discard(lambda span: span.cut > 1)
    assert sorted(path.name for path in files.home.iterdir()) == [*both((0, 1)), "notes.txt"]


def test_what_all_can_do_without_goes(tmp_path: Path) -> None:
    ones = [(k, k + 1) for k in range(12)]
    files = touch(tmp_path, 0, *both(*ones))
    behind = touch(tmp_path, 1, *both(*ones[:9]))
    files.prune()
    assert [span.cut for span in files.spans()] == [9, 10, 11, 12]
    behind.prune()
    assert [span.cut for span in behind.spans()] == [8, 9]
    touch(tmp_path, 1, *both((9, 12)))
    files.prune()
    assert [span.cut for span in files.spans()] == [11, 12]
    touch(tmp_path, 0, *both(*[(k, k + 1) for k in range(12, 30)]))
    files.prune()
    assert [span.cut for span in files.spans()] == list(range(25, 31))


def test_a_newer_one_takes_the_place_of_one_that_waits(capsys: pytest.CaptureFixture[str]) -> None:
    writer, go, begun, done = Writer(), threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        go.wait(10)
        done.append("slow")

    def broken() -> None:
        raise OSError("no space left")

    writer.put(slow)
    assert begun.wait(10)
    writer.put(lambda: done.append("never"))
    writer.put(broken)
    go.set()
    writer.close(10)
    assert done == ["slow"]
    assert "a checkpoint could not be written: no space left" in capsys.readouterr().out
