"""Every experiment is complete: description, settings, expectations, and the results it shows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from decent.reproduce import expectations, tables
from decent.reproduce.experiment import Experiment

HOME = Path(__file__).resolve().parents[2] / "experiments"
EXPERIMENTS = [Experiment(path) for path in sorted(HOME.iterdir()) if path.is_dir()]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_experiments_are_complete(experiment: Experiment) -> None:
    assert experiment.describe().claim.endswith(".")
    assert experiment.settings(fast=True) != experiment.settings(fast=False)
    assert experiment.checks()
    assert callable(experiment.function("measure"))
    assert callable(experiment.function("plot"))


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_results_are_those_of_a_full_run(experiment: Experiment) -> None:
    kept = json.loads((experiment.results / "figures.json").read_text())
    assert kept["fast"] is False
    assert kept["settings"] == experiment.settings(fast=False)
    verdicts = expectations.judge(experiment.checks(), kept["figures"], fast=False)
    assert [each for each in verdicts if not each.ok] == []
    page = experiment.readme.read_text()
    assert tables.put(page, kept["figures"]["table"], experiment.readme) == page


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_the_page_shows_every_plot(experiment: Experiment) -> None:
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", experiment.readme.read_text()))
    kinds = ("*.svg", "*.png")
    drawn = {f"results/{path.name}" for kind in kinds for path in experiment.results.glob(kind)}
    assert drawn
    assert shown == drawn


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda each: each.name)
def test_the_list_of_experiments_has_it(experiment: Experiment) -> None:
    assert f"({experiment.name}/README.md)" in (HOME / "README.md").read_text()
