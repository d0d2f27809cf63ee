"""`decent experts train`, router and evaluate: what they print, and how they exit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from decent.cli import main

SMALL = ["expert.steps=20", "router.steps=20", "partition.experts=2", "partition.fine=4"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    out = tmp_path / "ensemble"
    settings = [part for each in SMALL for part in ("--set", each)]
    assert run("partition", "digits", "-o", str(out), *settings)[0] == 0
    return out


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["experts", *arguments])
    return done.exit_code, done.stdout


def test_trained_evaluated_and_shown(folder: Path) -> None:
    assert run("train", str(folder))[0] == 0
    code, text = run("router", str(folder), "--json")
    assert code == 0
    assert json.loads(text)["held_out"]
    assert run("train", str(folder), "--dense", "--steps", "5", "--batch-size", "8")[0] == 0
    code, text = run(
        "evaluate", str(folder), "--strategy", "full", "-n", "50", "--json", "--bits", "3"
    )
    report = json.loads(text)
    assert (report["samples"], report["against"]) == (50, "dense")
    assert all(0 < row["bits"]["mean"] < 4 for row in report["rows"])
    modules = {
        each["name"]: each for each in json.loads(run("show", str(folder), "--json")[1])["modules"]
    }
    assert modules["dense"]["steps"] == 5
    assert modules["expert_1"]["multiply_adds"] > 0


def test_bad_input_exits_with_2(folder: Path, tmp_path: Path) -> None:
    assert run("train", str(folder), "--expert", "2")[0] == 2
    assert run("train", str(folder), "--dense", "--expert", "0")[0] == 2
    assert run("train", str(tmp_path / "nowhere"))[0] == 2
    assert run("evaluate", str(folder))[0] == 2


def test_interrupted_it_keeps_its_checkpoint(folder: Path) -> None:
    path = folder / "settings.toml"
    path.write_text(path.read_text().replace("steps = 20", "steps = 200_000", 1))
    command = [sys.executable, "-c", "from decent.cli import main; main()", "experts", "train"]
    process = subprocess.Popen([*command, str(folder), "--expert", "0"], stderr=subprocess.PIPE)
    checkpoint, end_s = folder / "training" / "expert_0.safetensors", time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < end_s:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert checkpoint.exists()
