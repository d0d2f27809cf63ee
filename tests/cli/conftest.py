"""What the tests of the command line share: a folder to work in, and the command as a process.

FAKES: `engine` stands in for `decent.launcher.launch`, `decent.simulation.simulate` and
`decent.simulation.compare`. It records how it was called, reports two statuses, and returns made-up
figures; everything above it is real.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from observe.outcomes import comparison, outcome, statuses

from decent.cli import main
from decent.config import Config

COMMAND = "import sys; from decent.cli import main; main(sys.argv[1:], prog_name='decent')"


@dataclass
class Engine:
    """A fake of what carries runs out."""

    dead: tuple[int, ...] = ()
    raises: BaseException | None = None
    step: int | None = 300
    interrupted: bool = False
    config: Config = field(default_factory=Config)
    out: Path = Path()
    script: Path | None = None
    arguments: list[str] = field(default_factory=list)
    calls: int = 0

    def launch(
        self,
        config: Config,
        out: Path,
        *,
        script: Path | None = None,
        arguments: list[str] | None = None,
        on_status: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> dict[str, Any]:
        self.config, self.out, self.script = config, out, script
        self.arguments, self.calls = arguments or [], self.calls + 1
        assert (out / "config.toml").is_file()
        assert config.workers is not None
        if on_status and self.step:
            on_status(statuses(config.workers, self.step))
            on_status(statuses(config.workers, self.step, state="done"))
        if self.raises:
            raise self.raises
        return outcome(config.workers, self.dead) | {"interrupted": self.interrupted}

    def simulate(self, config: Config, out: Path, *, on_status: Any = None) -> dict[str, Any]:
        return self.launch(config, out, on_status=on_status)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine()
    monkeypatch.setattr("decent.launcher.launch", fake.launch, raising=False)
    monkeypatch.setattr("decent.simulation.simulate", fake.simulate, raising=False)
    monkeypatch.setattr("decent.simulation.compare", lambda config: comparison(), raising=False)
    return fake


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def decent(*arguments: str | Path) -> Result:
    """The command in this process."""
    return CliRunner().invoke(main, [str(each) for each in arguments], prog_name="decent")


def process(
    *arguments: str | Path, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    line = [sys.executable, *options, "-c", COMMAND, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
