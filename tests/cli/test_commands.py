"""`decent tasks`, `topology show` and `merge` on real files, once each as a process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from cli.conftest import decent, process

np = pytest.importorskip("numpy")


def test_tasks() -> None:
    done = process("tasks")
    assert done.returncode == 0
    assert "digits  ready" in done.stdout
    assert "alpha = 0.1" in done.stdout


def test_tasks_as_json() -> None:
    tasks = {task["name"]: task for task in json.loads(decent("tasks", "--json").stdout)}
    assert tasks["digits"]["options"]["hidden"] == 128
    assert set(tasks["digits"]) == {"name", "description", "options", "status"}


def test_topology_that_comes_with_decent_as_json() -> None:
    known = json.loads(process("topology", "show", "ring16", "--json").stdout)
    assert (known["family"], known["n"], len(known["edges"])) == ("ring", 16, 16)
    assert known["models_per_step"] == pytest.approx(1.0)
    assert known["chi_1"] == pytest.approx(1 / (1 - np.cos(np.pi / 8)))


def test_topology_of_a_family() -> None:
    done = process("topology", "show", "ring", "-n", "12")
    assert done.returncode == 0
    assert "χ₁, slowest mode" in done.stdout
    assert done.stdout.count("╲") == 12


def test_topology_at_another_rate(here: Path) -> None:
    Path("net.toml").write_text('family = "star"\nworkers = 5\n')
    known = json.loads(process("topology", "show", "net.toml", "--rate", "0.1", "--json").stdout)
    assert known["models_per_step"] == pytest.approx(0.1)


def test_merge_is_the_weighted_mean(here: Path) -> None:
    for k in range(3):
        save_file({"w": np.full((2, 3), float(k), np.float32)}, f"{k}.safetensors")
    files = [f"{k}.safetensors" for k in range(3)]
    done = process("merge", *files, "-o", "out/merged.safetensors", "--weights", "1,2,1")
    assert done.returncode == 0, done.stderr
    assert "3 models merged" in done.stdout
    merged = load_file("out/merged.safetensors")
    np.testing.assert_allclose(merged["w"], 1.0)
    assert done.stdout.startswith("out/merged.safetensors")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--weights", "1"], "1 weights for 2 models: expected one weight for each"),
        (["--weights", "1,x"], "--weights 1,x: expected numbers, one for each model"),
        (["absent.safetensors"], "absent.safetensors: no such file"),
        (["-o", "a.safetensors"], "-o a.safetensors: it exists: expected a new file. Remove it"),
        (["odd.safetensors"], "odd.safetensors: tensor w is F32[3], expected"),
    ],
)
def test_what_cannot_be_merged(more: list[str], words: str, here: Path) -> None:
    for name, size in (("a", 2), ("b", 2), ("odd", 3)):
        save_file({"w": np.zeros(size, np.float32)}, f"{name}.safetensors")
    done = decent("merge", "a.safetensors", "b.safetensors", "-o", "out.safetensors", *more)
    assert done.exit_code == 2
    assert done.stderr.startswith("decent: error: ")
    assert words.replace(", expected", "") in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.stem for path in here.iterdir()) == ["a", "b", "odd"]
