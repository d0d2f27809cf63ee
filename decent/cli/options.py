"""What `launch` and `simulate` have in common on the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Options:
    """The options of a run as they were given."""

    workers: int | None = None
    out: Path | None = None
    settings: tuple[str, ...] = ()
    seed: int | None = None
    compare: bool = False
    as_json: bool = False
    insecure: bool = False
    bandwidth: str | None = None

    def overrides(self) -> list[str]:
        """As `config.load` takes them; the options of their own come last, and so count."""
        insecure = "true" if self.insecure else None
        own = {
            "workers": self.workers, "seed": self.seed, "runtime.insecure": insecure,
            "exchange.bandwidth": self.bandwidth,
        }  # fmt: skip
        return [*self.settings, *(f"{k}={v}" for k, v in own.items() if v is not None)]


_OPTIONS = (
    click.option("-n", "workers", type=int, metavar="WORKERS", help="How many workers."),
    click.option(
        "-o",
        "out",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for the run, new or empty.  [runs/NAME-TIME]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set a key of the configuration, such as steps=500 or task.alpha=0.3; repeatable.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of all that is random."
    ),
    click.option(
        "--bandwidth",
        metavar="RATE",
        help="Payload that a worker sends, at most, such as 20Mbit or 2.5MB a second.",
    ),
    click.option(
        "--compare",
        is_flag=True,
        help="Also train without any exchange, and with synchronous all-reduce.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, alone."),
)


def run_options(command: Command) -> Command:
    """Adds the options of `Options` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
