"""`decent simulate` where exchanges take no time: the folder, Ctrl-C and going on, what is refused.
Nothing faked."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cli.conftest import decent
from decent import config as configs
from decent.learning.ridge import Quadratic, Ridge

DATA = Path(__file__).parents[1] / "data"
SHORT = (
    "-n",
    "4",
    "--set",
    "steps=12",
    "--set",
    "simulation.records=4",
    "--set",
    "topology.rate=3",
)


def curve(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(folder, "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("task", ["ridge", "logistic"])
def test_a_convex_task_by_its_name(task: str, here: Path) -> None:
    done = decent("simulate", task, *SHORT, "-o", "out")
    assert done.exit_code == 0, done.output
    assert "4 workers, ring · dadao, poisson" in done.stdout
    assert "run folder: out" in done.stdout
    files = sorted(path.name for path in Path("out").iterdir())
    assert files == ["config.toml", "curve.jsonl", "merged.safetensors", "summary.json"]
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["interrupted"] is False
    assert summary["merged_among"] == [0, 1, 2, 3]
    assert set(summary["merged"]) == {"distance", "gap"}
    assert summary["ideal"]["last"] == curve("out")[-1]
    assert [round(point["time"], 9) for point in curve("out")] == [0, 3, 6, 9, 12]
    assert summary["ideal"]["gradients"] == sum(each["steps"] for each in summary["workers"])
    assert {"distance", "gap", "consensus"} < set(curve("out")[0])
    (x,) = load_file("out/merged.safetensors").values()
    assert x.shape == (5,)


def test_the_configuration_is_kept_as_resolved(here: Path) -> None:
    """With μ and L of the task, and the step that goes with them; it gives the same run again."""
    assert decent("simulate", "ridge", *SHORT, "-o", "out", "--seed", "3").exit_code == 0
    kept, problem = configs.load("out/config.toml"), Ridge(seed=3).objective(4)
    assert kept.workers == 4
    assert kept.dynamics.options == {"mu": problem.mu, "L": problem.L}
    assert kept.optimizer == configs.Named(name="SGD", options={"lr": 1 / (4 * problem.L)})
    assert decent("simulate", "out/config.toml", "-o", "again").exit_code == 0
    assert curve("again") == curve("out")
    assert Path("again/config.toml").read_bytes() == Path("out/config.toml").read_bytes()


def test_any_task_with_ideal(here: Path) -> None:
    done = decent("simulate", "digits", "--ideal", *SHORT, "-o", "out", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert [each["steps"] for each in summary["workers"]] == [12] * 4
    assert 0 < summary["merged"]["accuracy"] < 1
    assert summary["workers"][0]["mixed_share"] == 1.0
    assert len(load_file("out/merged.safetensors")) == 4


def test_consensus_takes_no_steps(here: Path) -> None:
    done = decent("simulate", "consensus", *SHORT, "--set", "task.size=20", "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert summary["ideal"]["gradients"] == 0
    assert summary["ideal"]["last"]["consensus"] < 1e-3


def pressing(keys: int, at: int) -> Callable[..., Any]:
    """Gradients, during the `at`-th of which Ctrl-C is pressed so many times."""
    plain, left = Quadratic.gradients, [at]

    def gradients(self: Quadratic, *arguments: Any) -> Any:
        left[0] -= 1
        for _ in range(0 if left[0] else keys):
            signal.raise_signal(signal.SIGINT)
        return plain(self, *arguments)

    return gradients


@pytest.mark.parametrize("keys", [1, 2])
def test_ctrl_c_keeps_what_was_computed_and_the_run_goes_on(
    keys: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ("simulate", "ridge", *SHORT, "--set", "simulation.gradients=paced")
    assert decent(*line, "-o", "whole").exit_code == 0
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        patched.setattr(Quadratic, "gradients", pressing(keys, at=25))
        done = decent(*line, "-o", "out", "--checkpoint-every", "2")
    assert done.exit_code == 130, done.output
    assert signal.getsignal(signal.SIGINT) is handler
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["interrupted"] is True
    assert summary["merged"] == {}
    assert not Path("out/merged.safetensors").exists()
    kept = curve("out")
    assert 2 <= len(kept) < 5
    assert kept == curve("whole")[: len(kept)]
    again = decent("simulate", "--resume", "out")
    assert again.exit_code == 0, again.output
    merged, expected = (load_file(f"{name}/merged.safetensors")["x"] for name in ("out", "whole"))
    assert torch.equal(merged, expected)
    for name in ("curve.jsonl", "config.toml"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()
    ends = [json.loads(Path(name, "summary.json").read_text()) for name in ("out", "whole")]
    for end in ends:
        del end["wall_s"], end["ideal"]["events_per_s"]
    assert ends[0] == ends[1]


def test_divergence_is_one_line_that_names_worker_and_time(here: Path) -> None:
    steep = ("--set", "dynamics=gossip", "--set", "optimizer.lr=1e40", "--set", "steps=50")
    done = decent("simulate", "ridge", "-n", "4", *steep, "-o", "out")
    assert done.exit_code == 1
    *_, last = done.stderr.splitlines()
    assert re.match(r"decent: error: worker \d, (at|by) time [\d.]+: ", last)
    assert "Lower the learning rate" in last
    assert "Traceback" not in done.output
    assert Path("out/config.toml").is_file()


REFUSED = {
    "replicas of any task": (
        ["digits", "--ideal", "--set", "simulation.replicas=2"],
        ["simulation.replicas = 2 with task 'digits'", "a convex task", "several seeds"],
    ),
    "a topology of another size": (
        ["ridge", "-n", "3", "--set", "topology.name=ring16"],
        ["workers = 3, but ring16 has 16"],
    ),
    "dadao for any task": (
        ["digits", "--ideal", "--set", "dynamics=dadao"],
        ["task 'digits' with dynamics 'dadao'", "dynamics.mu and dynamics.L"],
    ),
    "an optimizer for one alone": (
        ["digits", "--ideal", "--set", "optimizer=RMSprop"],
        ["optimizer RMSprop", "SGD, Adam or AdamW", 'simulation.fidelity = "network"'],
    ),
    "less than one replica": (
        ["ridge", "--set", "simulation.replicas=0"],
        ["simulation.replicas = 0", "1 or more"],
    ),
    "no such device": (
        ["ridge", "--set", "simulation.device=gpu"],
        ["device 'gpu'", "expected cpu"],
    ),
    "no such run": (["--resume", "nowhere"], ["nowhere/config.toml", "No such file"]),
    "no checkpoint": (["--resume", "empty"], ["checkpoint.safetensors", "--checkpoint-every"]),
    "no events": (["--events", "no.npz"], ["--events no.npz: No such file", "Check the path"]),
    "a folder": (["--events", "empty"], ["--events empty", "a NumPy archive"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_in_one_line(case: str, here: Path) -> None:
    Path("empty").mkdir()
    Path("empty/config.toml").write_text('task = "ridge"\nsimulation = { fidelity = "ideal" }\n')
    line, words = REFUSED[case]
    done = decent("simulate", *line)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    [error] = done.stderr.splitlines()
    assert error.startswith("decent: error: ")
    assert [word for word in words if word not in error] == []
    assert [path.name for path in here.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["digits", "--checkpoint-every", "5"], "--checkpoint-every needs --ideal"),
        (["ridge", "--checkpoint-every", "5", "--set", "method=dpsgd"], "--checkpoint-every needs"),
        (["ridge", "--checkpoint-every", "0"], "0"),
        (["ridge", "--resume", "network"], "give no configuration beside it"),
        (["--resume", "network", "-n", "4"], "no -n, --set"),
        (["--resume", "network"], "--resume needs --ideal"),
    ],
)
def test_usage(line: list[str], words: str, here: Path) -> None:
    Path("network").mkdir()
    Path("network/config.toml").write_text('task = "digits"\n')
    done = decent("simulate", *line)
    assert done.exit_code == 2
    assert words in done.stderr
    assert [path.name for path in here.rglob("*")] == ["network", "config.toml"]


def test_events_of_a_file_are_replayed(here: Path) -> None:
    done = decent("simulate", "--events", DATA / "dadao_ring16.npz", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["error_deviation"] < 1e-8
    assert found["state_deviation"] < 1e-8
    assert list(here.iterdir()) == []


def test_a_replay_in_words(here: Path) -> None:
    done = decent("simulate", "--events", DATA / "dadao_star16.npz")
    assert "16 workers" in done.stdout
    assert "deviation of the error curve" in done.stdout


def spoilt(name: str, index: Any, value: float) -> Callable[[dict[str, Any]], Any]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name] = arrays[name].copy()
        arrays[name][index] = value

    return change


DAMAGED: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN in a design": (spoilt("design", (7, 3, 1), np.nan), "the design of worker 7, row 3"),
    "infinite target": (spoilt("target", (2, 4), np.inf), "the targets of worker 2, row 4"),
    "NaN in a start": (spoilt("x0", (1, 1), np.nan), "x0 holds what is no number"),
    "events out of order": (spoilt("event_time", 9, 0.0), "event 9: time 0.0"),
    "unknown worker": (spoilt("event_i", 4, 16), "event 4.*worker 16"),
    "worker meets itself": (spoilt("event_j", slice(None), 3), "two different workers of 16"),
    "something missing": (lambda arrays: arrays.pop("mu"), "no mu in it"),
    "other events": (lambda a: a.update(event_i=a["event_i"][1:]), r"columns of shapes"),
    "other workers": (lambda a: a.update(x0=a["x0"][1:]), r"x0 of shape \(15, 5\).*\(16, 5\)"),
    "words": (lambda a: a.update(target=a["target"].astype(str)), "target holds what is no number"),
    "a vector for mu": (lambda a: a.update(mu=np.ones(2)), r"mu of shape \(2,\)"),
    "mu above L": (lambda a: a.update(mu=a["L"] * 2), "above L"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_wrong_events_are_refused(case: str, here: Path) -> None:
    change, words = DAMAGED[case]
    with np.load(DATA / "dadao_star16.npz") as file:
        arrays = dict(file)
    change(arrays)
    np.savez("events.npz", **arrays)
    refused(words)


def refused(words: str) -> None:
    done = decent("simulate", "--events", "events.npz", "--json")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert re.search(words, done.stderr), done.stderr


@pytest.mark.parametrize("case", ["empty", "text", "half", "flipped", "one array"])
def test_files_that_are_no_archive_are_refused(case: str, here: Path) -> None:
    whole = (DATA / "dadao_star16.npz").read_bytes()
    flipped = bytearray(whole)
    flipped[60:90] = bytes(30)
    content = {
        "empty": b"", "text": b"time, worker, peer\n", "half": whole[: len(whole) // 2],
        "flipped": bytes(flipped),
    }  # fmt: skip
    with Path("events.npz").open("wb") as file:
        if case in content:
            file.write(content[case])
        else:
            np.save(file, np.zeros(3))
    refused("--events events.npz.*expected a NumPy archive")
