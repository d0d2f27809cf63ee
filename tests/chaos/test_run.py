"""Real runs under faults: what is left adds up, and what does not is said."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.conftest import decent
from launcher.jobs import alive
from msgspec.structs import replace

from decent import config as configs
from decent.chaos import Wanted, chaos, plan, prepared
from decent.chaos.faults import KINDS
from decent.config import Config
from decent.errors import ConfigError

PATIENCE_S = 120.0


def config(*settings: str) -> Config:
    """A peer is taken for dead after 10 s: a kill that nobody is told of takes as long."""
    return configs.load(
        "chaos", ["workers=4", "runtime.dead_s=10", "runtime.silent_s=2", *settings]
    )


class Watcher:
    """Sees to it that a run ends, and that nothing of it is left running."""

    def __init__(self) -> None:
        self.pids: set[int] = set()
        self.end_s = time.monotonic() + PATIENCE_S

    def __call__(self, statuses: list[dict[str, Any]], faults: int) -> None:
        known = [each.get(name) for each in statuses for name in ("pid", "communicator")]
        self.pids |= {pid for pid in known if pid is not None}
        assert time.monotonic() < self.end_s, statuses


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    made = Watcher()
    yield made
    end_s = time.monotonic() + 5.0
    while any(map(alive, made.pids)) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert [pid for pid in made.pids if alive(pid)] == []


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_survivors_balance_and_merge(tmp_path: Path, watcher: Watcher) -> None:
    wanted = Wanted(rate=8.0, duration_s=5.0, tail_s=2.0)
    prepare = prepared(config("seed=7"), wanted)
    found = chaos(prepare, wanted, tmp_path, on_status=watcher)
    assert found["ok"], found["culprits"]
    assert len(found["killed"]) == 1
    assert {*found["survivors"]} <= {*found["merged_among"]}
    assert found["audit"]["balanced"]
    assert found["exchanges"]["completed"] > 0
    assert found["faults"]["kinds"].keys() == {*KINDS}
    assert found == json.loads((tmp_path / "chaos.json").read_text())
    written = [each for each in lines(tmp_path / "faults.jsonl") if "missed" not in each]
    planned = [fault.as_dict() for fault in plan(prepare, wanted)]
    injected = [{k: v for k, v in each.items() if k != "s"} for each in written]
    assert injected == json.loads(json.dumps(planned[: len(injected)]))
    assert len(injected) == found["faults"]["injected"] >= 40


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["exact", "bf16", "fp16", "int8", "topk"])
@pytest.mark.parametrize("shared_memory", [False, True])
def test_every_codec_stands_it(
    tmp_path: Path, watcher: Watcher, codec: str, shared_memory: bool
) -> None:
    wanted = Wanted(rate=8.0, duration_s=10.0)
    made = prepared(config("seed=2", f"exchange.codec={codec}"), wanted, shared_memory)
    found = chaos(made, wanted, tmp_path, on_status=watcher)
    assert found["ok"], found["culprits"]


def test_the_seed_of_the_run_settles_its_faults() -> None:
    one, other = (prepared(config(f"seed={seed}"), Wanted()) for seed in (3, 4))
    assert plan(one, Wanted()) == plan(one, Wanted()) != plan(other, Wanted())
    assert plan(one, Wanted()) == plan(replace(one, steps=7), Wanted())


def test_what_is_prepared_is_a_configuration() -> None:
    made = prepared(config("task.lr=0.2"), Wanted(duration_s=3.0))
    assert made.steps == 60
    assert made.runtime.ledger is True
    assert not made.runtime.shared_memory
    assert prepared(made, Wanted(duration_s=3.0)) == made


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["workers=1", "topology.name=ring"], "2 or more"),
        (["runtime.encrypt=true"], "encrypted"),
        (["runtime.host=0.0.0.0"], "encrypted"),
    ],
)
def test_what_has_no_place_for_a_proxy_is_refused(settings: list[str], words: str) -> None:
    given = configs.load(None, ["workers=4", *settings])
    with pytest.raises(ConfigError, match=words):
        prepared(given, Wanted())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--faults", "kill,earthquake"], "earthquake"),
        (["--rate", "0"], "--rate 0.0"),
        (["--duration", "-1"], "--duration -1.0"),
        (["no-such"], "no-such.toml"),
        (["script.py"], "decent launch"),
        (["--set", "runtime.encrypt=true"], "encrypted"),
    ],
)
def test_bad_input_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = decent("chaos", *arguments)
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert list(tmp_path.iterdir()) == []
