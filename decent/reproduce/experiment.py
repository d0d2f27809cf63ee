"""An experiment as a folder, and where experiments are found."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from decent import plugins, share
from decent.errors import ConfigError, InputError
from decent.reproduce import expectations
from decent.reproduce.expectations import Check

Settings = dict[str, Any]


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`run.toml`: the settings of a full run, and those that a fast run has otherwise."""

    title: str
    claim: str
    full: Settings
    fast: Settings


@dataclass(frozen=True)
class Experiment:
    """A folder with run.toml, expect.toml, experiment.py and README.md."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def readme(self) -> Path:
        return self.folder / "README.md"

    @property
    def results(self) -> Path:
        """Where the figures and plots are that the README shows."""
        return self.folder / "results"

    @property
    def installed(self) -> bool:
        """Whether it came in a wheel, so that its results are not ours to rewrite."""
        return "_share" in self.folder.parts

    def describe(self) -> Description:
        path = self.folder / "run.toml"
        try:
            return msgspec.convert(tomllib.loads(path.read_text()), Description)
        except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as cause:
            expected = "title, claim, and tables [full] and [fast] of settings"
            raise ConfigError(f"{path}: {cause}", expected, "see experiments/README.md") from None

    def settings(self, fast: bool) -> Settings:
        described = self.describe()
        return {**described.full, **described.fast} if fast else described.full

    def checks(self) -> list[Check]:
        return expectations.read(self.folder / "expect.toml")

    def function(self, name: str) -> Any:
        """`measure` or `plot` of its experiment.py."""
        path = self.folder / "experiment.py"
        return plugins.load(f"{path}:{name}", InputError, f"experiment {self.name!r}:")


def experiments() -> list[Experiment]:
    """All that came with decent, by name."""
    home = share.folder("experiments")
    return [Experiment(path.parent) for path in sorted(home.glob("*/run.toml"))]


def find(name: str) -> Experiment:
    """The experiment of this name, or in this folder of the user's own."""
    known = {each.name: each for each in experiments()}
    if name in known:
        return known[name]
    if (Path(name) / "run.toml").is_file():
        return Experiment(Path(name).resolve())
    near = get_close_matches(name, known, 1)
    raise InputError(
        f"no experiment {name!r}",
        f"one of {', '.join(known) or '(there are none)'}, or a folder with a run.toml",
        f"did you mean {near[0]}?" if near else "see decent reproduce --list",
    )
