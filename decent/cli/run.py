"""One run from the command line, whatever carries it out: settle what is to be done and check it,
make the folder, watch, write the summary and show it.

The run folder gets `config.toml` before the start and `summary.json` at the end; the rest in it is
the engine's. If the input turns out to be unusable, no folder is left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

from decent import config as configs
from decent import observe
from decent.cli.folder import RunFolder, check_unused, new_folder
from decent.cli.group import INTERRUPTED
from decent.cli.options import Options
from decent.config import Config
from decent.errors import ConfigError
from decent.folder import write_atomic, write_json
from decent.topology import Topology

Engine = Callable[..., dict[str, Any]]
"""(config, folder, on_status=…) → the raw outcome"""


@dataclass(frozen=True)
class Plan:
    """What is to be done, checked."""

    name: str
    config: Config
    topology: Topology
    options: Options
    script: Path | None = None
    arguments: Sequence[str] = ()
    resumes: bool = False

    @property
    def ideal(self) -> bool:
        return self.config.simulation.fidelity == "ideal" and self.config.method is None

    @property
    def in_events(self) -> bool:
        """Whether progress is counted in events, and not worker by worker."""
        return self.ideal or self.config.method is not None

    @property
    def title(self) -> str:
        table, n = self.config.topology, self.topology.n
        workers = f"{n} worker{'s' * (n != 1)}, {Path(table.file or table.name).stem}"
        how = f"{self.config.dynamics.name}, {self.config.schedule.name}"
        if self.config.method is not None:
            how = self.config.method.name
        return f"{self.name} · {workers} · {how}"


def plan(
    target: str | None, options: Options, arguments: Sequence[str] = (), scripts: bool = True
) -> Plan:
    """The plan for a configuration, a name or a script; raises InputError if it cannot be done."""
    script = Path(target) if target and target.endswith(".py") else None
    _check_target(script, options, arguments, scripts)
    source = None if script else target or "digits"
    config = _resolved(configs.load(source, options.overrides()))
    config.check()
    if options.compare and config.apart:
        raise ConfigError(
            "--compare of workers kept apart", "a run that ends in one model", 'merge = "mean"'
        )
    topology = config.make_topology()
    if options.out:
        check_unused(options.out)
    config = msgspec.structs.replace(config, workers=topology.n)
    name = Path(source or str(script)).stem
    return Plan(name, config, topology, options, script, arguments)


def resumed(folder: Path, options: Options, settings: Sequence[str] = ()) -> Plan:
    """The plan to go on with the run in `folder`, as its configuration has it, but for settings
    that may change."""
    if replace(options, insecure=False).overrides() or options.out:
        raise click.UsageError(
            "--resume goes on with the configuration and folder of that run: no -n, --set, --seed, "
            "-o"
        )
    insecure = ["runtime.insecure=true"] if options.insecure else []
    config = configs.load(folder / "config.toml", [*settings, *insecure])
    topology = config.make_topology()
    return Plan(folder.name, config, topology, replace(options, out=folder), resumes=True)


def _check_target(
    script: Path | None, options: Options, arguments: Sequence[str], scripts: bool
) -> None:
    if script is None and arguments:
        raise click.UsageError(f"unexpected {' '.join(arguments)}: only a script takes arguments")
    if script is None:
        return
    if not scripts:
        raise ConfigError(f"{script}", "a configuration or a name", "run a script by decent launch")
    if not script.is_file():
        raise ConfigError(f"{script}: no such file", "a Python script", "check the path")
    if options.compare:
        raise click.UsageError("--compare needs a task, and a script has none")


def _resolved(config: Config) -> Config:
    """With the topology's file by its full path, so that the copy in the run folder finds it."""
    file = config.topology.file
    if file is None or not Path(file).suffix:
        return config
    table = msgspec.structs.replace(config.topology, file=str(Path(file).resolve()))
    return msgspec.structs.replace(config, topology=table)


def perform(plan: Plan, engine: Engine) -> int:
    """Carry out the plan and show what came of it; the exit code."""
    progress = Console(stderr=True, highlight=False)
    with _folder(plan) as run:
        outcome = _carry_out(plan, engine, run, progress)
    folder = run.path
    summary = _summarise(plan, folder, outcome)
    if plan.options.compare and not summary["interrupted"]:
        with observe.busy(progress, "comparing: isolated workers, synchronous all-reduce"):
            summary = _summarise(plan, folder, outcome, _compared(plan.config))
    _show(summary, folder, plan.options.as_json)
    return INTERRUPTED if summary["interrupted"] else int(bool(summary["faults"]))


def _folder(plan: Plan) -> AbstractContextManager[RunFolder]:
    if plan.resumes and plan.options.out is not None:
        return nullcontext(RunFolder(plan.options.out, keep=True))
    return new_folder(plan.options.out, plan.name)


def _carry_out(plan: Plan, engine: Engine, run: RunFolder, console: Console) -> dict[str, Any]:
    """The raw outcome. Once a step has been made, the folder is kept whatever happens."""
    write_atomic(run.path / "config.toml", plan.config.to_toml().encode())
    names = [plan.topology.name(i) for i in range(plan.topology.n)]
    shown = observe.EventView(console, plan.title) if plan.in_events else None
    with shown or observe.view(console, plan.title, names) as view:

        def on_status(statuses: list[dict[str, Any]]) -> None:
            run.keep = run.keep or any(each.get("step") for each in statuses)
            view(statuses)

        return engine(plan.config, run.path, on_status=on_status)


def _summarise(
    plan: Plan, folder: Path, outcome: dict[str, Any], compare: dict[str, Any] | None = None
) -> dict[str, Any]:
    script = [str(plan.script), *plan.arguments] if plan.script else None
    summary = observe.summarise(plan.config, plan.topology, outcome, compare, script=script)
    write_json(folder / "summary.json", summary)
    return summary


def _compared(config: Config) -> dict[str, Any]:
    from decent.simulation import compare

    compared: dict[str, Any] = compare(config)
    return compared


def _show(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(summary, indent=2, allow_nan=False))
    else:
        Console(highlight=False).print(observe.results(summary))
    click.echo(f"\nrun folder: {folder}", err=as_json)
