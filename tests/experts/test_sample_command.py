"""`decent sample`, as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from cli.conftest import decent
from safetensors import safe_open

from decent.experts import networks, partition, settings, store

OPTIONS = {"width": 8, "depth": 1}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three untrained experts of digits, with ten classes, and a router."""
    folder = tmp_path_factory.mktemp("ensemble") / "digits"
    overrides = [
        "data.source=digits", "data.latent=pca:6", "partition.experts=3", "partition.fine=12",
        "partition.features=latent", "sampling.steps=5",
    ]  # fmt: skip
    partition.partition(settings.load(None, overrides), folder)
    for name, outputs in [*((store.expert(k), None) for k in range(3)), (store.ROUTER, 3)]:
        module = networks.build("mlp", (6,), 10, outputs, **OPTIONS)
        record = store.Record(
            network="mlp", shape=(6,), classes=10, outputs=outputs, options=OPTIONS
        )
        store.save(folder / name, module, record)
    return folder


def test_a_picture_and_how_it_came_about(home: Path, tmp_path: Path) -> None:
    from PIL import Image

    out = tmp_path / "out.png"
    done = decent("sample", home, "-n", 9, "--strategy", "top_k:1", "--seed", 3, "-o", out)
    assert done.exit_code == 0, done.output
    assert "9 samples, 5 evaluations, 1.00 experts a sample" in " ".join(done.stdout.split())
    with Image.open(out) as image:
        assert image.size == (7 * (3 * 8 + 2), 7 * (3 * 8 + 2))  # small ones are enlarged
    told = json.loads(out.with_suffix(".json").read_text())
    expected = {"strategy": "top_k:1", "seed": 3, "steps": 5, "method": "euler", "lost": {}}
    assert told.items() >= expected.items()


def test_tensors_with_labels_and_the_same_again_in_batches(home: Path, tmp_path: Path) -> None:
    found = []
    for name, more in (("a", []), ("b", ["--batch", 5])):
        out = tmp_path / f"{name}.safetensors"
        arguments = ["-n", 12, "--label", "all", "--guidance", 2, "--method", "heun", *more]
        assert decent("sample", home, *arguments, "-o", out).exit_code == 0
        with safe_open(out, "pt") as file:
            found.append(file.get_tensor("x"))
            assert file.get_tensor("labels").tolist() == [*range(10), 0, 1]
            assert json.loads(file.metadata()["samples"])["guidance"] == 2
    assert found[0].shape == (12, 1, 8, 8)
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--label", "10"], "0 to 9, or all"),
        (["--label", "x"], "0 to 9, or all"),
        (["--guidance", "2"], "--label"),
        (["--strategy", "best"], "nucleus:q"),
        (["--method", "rk4"], "euler, heun"),
        (["-o", "x.gif"], ".png or .safetensors"),
        (["--experts", "none.toml"], "none.toml"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = decent("sample", home, *arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_samples_that_travel(home: Path, tmp_path: Path) -> None:
    """At every step it is top-1; several steps at a time are asked for less often."""
    found = []
    guided = ["-n", 6, "--label", "all", "--guidance", 2]
    for name, more in (("top", ["--strategy", "top_k:1"]), ("one", ["--migrate", 1])):
        out = tmp_path / f"{name}.safetensors"
        assert decent("sample", home, *guided, *more, "-o", out).exit_code == 0
        with safe_open(out, "pt") as file:
            found.append(file.get_tensor("x"))
    torch.testing.assert_close(found[0], found[1])
    done = decent("sample", home, "-n", 6, "--migrate", 3, "-o", tmp_path / "three.png")
    assert done.exit_code == 0
    assert json.loads((tmp_path / "three.json").read_text())["every"] == 3
    refused = decent("sample", home, "--migrate", 2, "--method", "heun", "-o", tmp_path / "x.png")
    assert refused.exit_code == 2
    assert "--migrate with method = heun: expected the strategy top_k:1" in refused.output
