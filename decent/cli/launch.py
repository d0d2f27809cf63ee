"""`decent launch`: a run of real processes, from a configuration or around a script."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decent.cli.options import Options, run_options
from decent.errors import ConfigError

if TYPE_CHECKING:
    from decent.config import Config


class ScriptCommand(click.Command):
    """A command whose options may stand anywhere, unless its first argument is a Python script:
    then all that follows is the script's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = False
        values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        ctx.allow_interspersed_args = not str(values.get("target")).endswith(".py")
        return super().parse_args(ctx, args)


@click.command(cls=ScriptCommand, short_help="Train with real processes.")
@click.argument("target", required=False, metavar="[CONFIG.toml | NAME | SCRIPT.py]")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
@run_options
@click.option("--insecure", is_flag=True, help="Encrypt nothing, not even off this machine.")
@click.option(
    "--checkpoint-every",
    type=click.IntRange(min=0),
    metavar="N",
    help="Take a checkpoint at least every N local steps, to go on from after a crash.",
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    metavar="N",
    help="Start a worker that dies again, up to N times.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the run in DIR from its checkpoints.",
)
@click.pass_context
def launch(
    ctx: click.Context,
    /,
    target: str | None,
    arguments: tuple[str, ...],
    checkpoint_every: int | None,
    restarts: int | None,
    resume: Path | None,
    **given: Any,
) -> None:
    """Train with real processes: one for each worker.

    Give a configuration, the name of one that comes with decent, or a script of your own that uses
    decent.Gossip; nothing stands for `digits`. Options stand before a script, and what follows it
    is passed on to it.

    \b
      decent launch
      decent launch digits -n 4 --set topology.rate=0.1 --compare
      decent launch -n 4 train.py --epochs 3
      decent launch --resume runs/digits-20260101-120000
    """
    from decent.cli import run

    own = {"runtime.checkpoint_every": checkpoint_every, "runtime.restarts": restarts}
    settings = [f"{key}={value}" for key, value in own.items() if value is not None]
    if resume is not None:
        if target is not None:
            raise click.UsageError("--resume goes on with a run: give no configuration beside it")
        ctx.exit(_resume(resume, Options(**given), settings, restarts or 0))
    given["settings"] = (*given["settings"], *settings)
    plan = run.plan(target, Options(**given), arguments)
    _check_insecure(plan.config, plan.options)
    from decent import launcher

    engine = partial(launcher.launch, script=plan.script, arguments=list(arguments))
    ctx.exit(run.perform(plan, engine))


def _resume(folder: Path, options: Options, settings: list[str], restarts: int) -> int:
    """Go on with the run in `folder`; the exit code."""
    from decent import launcher
    from decent.cli import run

    found = launcher.resumable(folder, restarts)
    plan = run.resumed(folder, options, settings)
    _check_insecure(plan.config, plan.options)
    script = None if found.script is None else Path(found.script)
    if script is not None and not script.is_file():
        raise ConfigError(f"{script}: no such file", "the script of the run", "put it back")
    plan = replace(plan, script=script, arguments=found.arguments)
    engine = partial(launcher.launch, script=script, arguments=list(found.arguments), resume=found)
    return run.perform(plan, engine)


def _check_insecure(config: Config, options: Options) -> None:
    """A configuration may come from someone else: it alone must not turn encryption off."""
    if config.runtime.insecure and not options.insecure:
        raise ConfigError(
            "runtime.insecure = true in the configuration", "--insecure on the command line",
            "type it to encrypt nothing, or remove the key",
        )  # fmt: skip
