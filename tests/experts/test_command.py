"""`decent experts partition` and `show`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.conftest import decent, process

from decent.experts import networks, store

ARGUMENTS = ["experts", "partition", "digits", "--set", "data.latent=pca:6"]


def test_divided_shown_and_trained(tmp_path: Path) -> None:
    out = tmp_path / "ensemble"
    done = process(*ARGUMENTS, "-o", out, "--set", "partition.experts=3")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "reading digits")
    assert "███" in done.stdout
    assert "140 samples held out" in " ".join(done.stdout.split())
    assert {path.name for path in out.iterdir()} == {
        "latent", "manifest.json", "model_index.json", "partition.safetensors", "settings.toml",
    }  # fmt: skip
    module = networks.build("mlp", (6,), width=4)
    record = store.Record(network="mlp", shape=(6,), options={"width": 4}, steps=1234, loss=0.25)
    digest = store.save(out / "expert_1", module, record).digest
    shown = decent("experts", "show", out).stdout
    assert "1,234" in shown
    assert digest[:8] in shown
    assert shown.count("not trained") == 3
    facts = json.loads(decent("experts", "show", out, "--json").stdout)
    assert facts["modules"][1] == {
        "name": "expert_1", "network": "mlp", "steps": 1234, "loss": 0.25, "digest": digest,
        "seconds": None, "multiply_adds": None,
    }  # fmt: skip
    assert sum(facts["sizes"]) + facts["held_out"] == 1400


def test_the_manifest_as_json(tmp_path: Path) -> None:
    done = decent(*ARGUMENTS, "-o", tmp_path / "e", "--set", "partition.method=random", "--json")
    facts = json.loads(done.stdout)
    assert facts["method"] == "random"
    assert len(facts["pi"]) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["partition", "digts"], "digits.toml"),
        (["partition", "digits", "--set", "data.sorce=x"], "Did you mean source"),
        (["partition", "digits", "--set", "partition.experts=2000"], "fine = 32"),
        (["show", "."], "decent experts partition"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = decent("experts", *arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.startswith("decent: error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_anything_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    done = decent(*ARGUMENTS, "-o", tmp_path)
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
