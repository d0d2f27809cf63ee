"""`decent reproduce` on a tiny experiment: what it writes, what it refuses, how it ends."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from decent.cli import main
from decent.errors import ConfigError
from decent.reproduce import expectations, tables

RUN = """
title = "A tiny experiment"
claim = "Twice two is four."
[full]
factor = 2
other = "kept"
[fast]
factor = 1
"""
EXPECT = """
[[check]]
figure = "products.0"
about = 4.0
within = 0.1
says = "twice two"
fast = { at_most = 2 }

[[check]]
figure = "kept"
at_least = 1
says = "fast runs keep what they do not change"
"""
PROGRAM = """
def measure(settings, progress):
    progress("multiplying", 0.5)
    products = [2 * settings["factor"]]
    table = [{"factor": settings["factor"], "product": float(products[0])}]
    return {"products": products, "kept": settings["other"] == "kept", "table": table}

def plot(figures, folder):
    from decent.reproduce import style
    figure, axes = style.panels(1)
    style.line(axes, [1, 2], [1, figures["products"][0]], "products")
    style.finish(axes, x="one", y="two", log="xy")
    style.save(figure, folder / "products.svg")
"""
README = "# Tiny\n\n<!-- measured -->\nold\n<!-- /measured -->\n\nThe end.\n"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the one experiment there is; another one is the current folder."""
    folder = tmp_path / "experiments" / "tiny-sum"
    folder.mkdir(parents=True)
    files = {"run.toml": RUN, "expect.toml": EXPECT, "experiment.py": PROGRAM, "README.md": README}
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr("decent.share.folder", lambda name: tmp_path / name)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def reproduce(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["reproduce", *arguments], prog_name="decent")


def figures(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "figures.json").read_text())
    return found


def test_the_list_names_experiments_and_claims(tiny: Path) -> None:
    done = reproduce("--list")
    assert done.exit_code == 0
    assert "tiny-sum" in done.stdout
    assert "Twice two is four." in done.stdout
    [entry] = json.loads(reproduce("--list", "--json").stdout)
    assert entry["name"] == "tiny-sum"


def test_a_full_run_writes_results_and_the_page(tiny: Path) -> None:
    done = reproduce("tiny-sum")
    assert done.exit_code == 0, done.output
    assert "ok      twice two: 4, expected 4 ± 0.1" in done.stdout
    assert "multiplying" in done.stderr
    found = figures(tiny / "results")
    assert found["figures"]["products"] == [4]
    assert found["settings"] == {"factor": 2, "other": "kept"}
    assert (tiny / "results" / "products.svg").read_text().startswith("<?xml")
    page = (tiny / "README.md").read_text()
    assert "| factor | product |\n| --: | --: |\n| 2 | 4 |" in page
    assert page.endswith("The end.\n")
    assert "old" not in page


def test_a_plot_is_the_same_to_the_byte(tiny: Path) -> None:
    reproduce("tiny-sum", "-o", "one")
    reproduce("tiny-sum", "-o", "two")
    assert Path("one/products.svg").read_bytes() == Path("two/products.svg").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "folder"),
    [(["--fast"], "runs/reproduce-tiny-sum-fast"), (["-o", "there"], "there")],
)
def test_other_runs_leave_the_page_alone(tiny: Path, arguments: list[str], folder: str) -> None:
    assert reproduce("tiny-sum", *arguments).exit_code == 0
    assert figures(Path(folder))["fast"] is (arguments == ["--fast"])
    assert (tiny / "README.md").read_text() == README
    assert not (tiny / "results").exists()


def test_everything_as_json(tiny: Path) -> None:
    found = json.loads(reproduce("tiny-sum", "--fast", "--json").stdout)
    assert found["ok"] is True
    assert found["figures"]["products"] == [2]
    assert found["checks"][0]["value"] == 2


def test_what_is_missed_fails_the_run(tiny: Path) -> None:
    (tiny / "expect.toml").write_text(EXPECT.replace("4.0", "5.0").replace('"kept"', '"gone"'))
    done = reproduce("tiny-sum")
    assert done.exit_code == 1
    assert "MISSED  twice two: 4, expected 5 ± 0.1" in done.stdout
    assert "none, expected ≥ 1" in done.stdout


def test_an_unknown_name_is_refused_with_a_suggestion(tiny: Path) -> None:
    done = reproduce("tiny-sun")
    assert done.exit_code == 2
    assert "no experiment 'tiny-sun'" in done.stderr
    assert "Did you mean tiny-sum?" in done.stderr


def test_an_experiment_of_ones_own_is_found_by_its_folder(tiny: Path) -> None:
    own = tiny.rename(tiny.parents[1] / "own")
    assert reproduce(str(own), "--fast").exit_code == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("run.toml", "title = 1", "run.toml"),
        ("expect.toml", EXPECT.replace("within", "without"), "without"),
        ("expect.toml", EXPECT.replace("within = 0.1", ""), "the bounds of 'products.0'"),
        ("experiment.py", "measure = None", "no attribute 'plot'"),
        ("README.md", "# Tiny\n", "no place for the table"),
    ],
)
def test_a_broken_folder_is_refused(tiny: Path, file: str, text: str, message: str) -> None:
    (tiny / file).write_text(text)
    done = reproduce("tiny-sum")
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tiny / "results").exists()


def test_nothing_is_half_written(tiny: Path) -> None:
    (tiny / "experiment.py").write_text(PROGRAM + "    raise KeyboardInterrupt\n")
    assert reproduce("tiny-sum").exit_code == 130
    assert not (tiny / "results").exists()
    assert (tiny / "README.md").read_text() == README


def test_without_matplotlib_the_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = reproduce("tiny-sum")
    assert done.exit_code == 2
    assert "pip install decent[plots]" in done.stderr


def test_cells_are_legible() -> None:
    values = [True, 1234567, 0.123456, 12345.6, 1e-9, None, float("nan"), "ring"]
    expected = ["yes", "1,234,567", "0.123", "12,346", "1e-09", "–", "–", "ring"]
    assert [tables.cell(value) for value in values] == expected


def test_figures_are_found_by_their_path() -> None:
    assert expectations.look_up({"a": [{"b": 3}]}, "a.0.b") == 3
    assert expectations.look_up({"a": [{"b": 3}]}, "a.1.b") is None
    assert expectations.look_up({"a": 1}, "a.b") is None


def test_a_figure_that_is_no_number_has_missed(tmp_path: Path) -> None:
    path = tmp_path / "expect.toml"
    path.write_text('[[check]]\nfigure = "a"\nat_most = 1\nsays = "small"\nfast = false\n')
    checks = expectations.read(path)
    for value in (float("nan"), "0", None):
        assert not expectations.judge(checks, {"a": value}, fast=False)[0].ok
    assert expectations.judge(checks, {"a": 0}, fast=True) == []
    path.write_text("check = 1")
    with pytest.raises(ConfigError, match=r"expect\.toml"):
        expectations.read(path)
