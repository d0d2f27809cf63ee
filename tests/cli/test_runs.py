"""`decent launch` and `decent simulate` over a FAKE engine (see conftest): what reaches it, what is
written, what is shown, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.conftest import Engine, decent
from decent import config as configs
from decent.errors import CommunicatorError, ModelError


def only_run(here: Path) -> Path:
    [run] = (here / "runs").iterdir()
    return run


@pytest.mark.parametrize("command", [["launch"], ["launch", "digits"], ["simulate", "digits"]])
def test_digits_is_the_main_job(command: list[str], here: Path, engine: Engine) -> None:
    done = decent(*command)
    assert done.exit_code == 0, done.output
    run = only_run(here)
    assert run.name.startswith("digits-20")
    assert engine.out == Path("runs") / run.name
    assert configs.load(run / "config.toml") == configs.load("digits") == engine.config
    assert json.loads((run / "summary.json").read_text())["merged"]["accuracy"] == 0.952
    assert "merged (once, at the end, 8 of 8 workers)" in done.stdout
    assert f"run folder: runs/{run.name}" in done.stdout
    assert "training: 8 workers, steps 300–370 of 1000" in done.stderr


def test_options_may_stand_anywhere(here: Path, engine: Engine) -> None:
    words = ["-n", "4", "digits", "--set", "steps=50", "-o", "out", "--seed", "7"]
    assert decent("launch", *words, "--set", "task.alpha=0.3").exit_code == 0
    assert (engine.config.workers, engine.config.steps, engine.config.seed) == (4, 50, 7)
    assert engine.config.task.options["alpha"] == 0.3
    assert (here / "out" / "summary.json").is_file()


def test_what_follows_a_script_is_its_own(here: Path, engine: Engine) -> None:
    Path("train.py").write_text("")
    its_own = ["--lr", "1", "-n", "9", "--json", "--", "--help", "x.py"]
    done = decent("launch", "-n", "3", "-o", "out", "train.py", *its_own)
    assert done.exit_code == 0, done.output
    assert engine.script == Path("train.py")
    assert engine.arguments == its_own
    assert engine.config.workers == 3
    summary = json.loads((here / "out" / "summary.json").read_text())
    assert summary["script"][:2] == ["train.py", "--lr"]
    assert summary["task"] is None


def test_a_file_of_ones_own(here: Path, engine: Engine) -> None:
    Path("sub").mkdir()
    Path("sub/net.toml").write_text('family = "star"\nworkers = 5\n')
    Path("sub/mine.toml").write_text('[topology]\nfile = "net.toml"\nrate = "own"\n')
    assert decent("simulate", "sub/mine.toml").exit_code == 0
    copy = configs.load(only_run(here) / "config.toml")
    assert copy.workers == 5
    assert copy.make_topology().family == "star"


def test_json_is_alone_on_stdout(here: Path, engine: Engine) -> None:
    done = decent("launch", "--json", "--compare")
    summary = json.loads(done.stdout)
    assert summary == json.loads((only_run(here) / "summary.json").read_text())
    assert summary["compare"]["all-reduce"]["merged"]["accuracy"] == 0.962
    assert "run folder:" in done.stderr


def test_compare_is_shown(here: Path, engine: Engine) -> None:
    text = decent("launch", "--compare").stdout
    assert "isolated, then merged" in text
    assert "synchronous all-reduce" in text


def test_a_fault_exits_1_and_is_told(here: Path, engine: Engine) -> None:
    engine.dead = (2,)
    done = decent("launch")
    assert done.exit_code == 1
    assert "worker 2 died after 3.1 s: killed by signal 9; merged without it" in done.stdout
    assert "7 of 8 workers" in done.stdout


def test_two_runs_in_one_second_have_two_folders(
    here: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.strftime", lambda *_: "now")
    assert [decent("launch").exit_code for _ in range(3)] == [0, 0, 0]
    names = sorted(run.name for run in (here / "runs").iterdir())
    assert names == ["digits-now", "digits-now-2", "digits-now-3"]


def test_an_empty_folder_may_be_given(here: Path, engine: Engine) -> None:
    Path("out").mkdir()
    assert decent("launch", "-o", "out").exit_code == 0
    again = decent("launch", "-o", "out")
    assert again.exit_code == 2
    assert engine.calls == 1


def test_interrupted(here: Path, engine: Engine) -> None:
    engine.interrupted = True
    done = decent("launch", "--compare", "-o", "a")
    assert done.exit_code == 130
    assert json.loads(Path("a/summary.json").read_text())["compare"] is None
    engine.raises = KeyboardInterrupt()
    assert decent("launch", "-o", "b").exit_code == 130


def test_input_refused_by_the_engine_leaves_nothing(here: Path, engine: Engine) -> None:
    engine.raises, engine.step = ModelError("a model", "another"), None
    done = decent("launch", "-o", "deep/er/out")
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1] == "decent: error: a model: expected another"
    assert list(here.iterdir()) == []


def test_work_is_never_removed(here: Path, engine: Engine) -> None:
    engine.raises = ModelError("the replicas differ", "replicas alike")
    assert decent("launch", "-o", "out").exit_code == 2
    assert Path("out/config.toml").is_file()


def test_a_failure_that_is_not_the_users_exits_1(here: Path, engine: Engine) -> None:
    engine.raises = CommunicatorError("worker 3 fell silent")
    done = decent("launch", "-o", "out")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == "decent: error: worker 3 fell silent"
    assert Path("out/config.toml").is_file()
