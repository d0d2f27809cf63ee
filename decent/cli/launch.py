"""`decent launch`: a run of real processes, from a configuration or around a script."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from decent.cli.options import Options, run_options


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
@click.pass_context
def launch(
    ctx: click.Context, /, target: str | None, arguments: tuple[str, ...], **given: Any
) -> None:
    """Train with real processes: one for each worker.

    Give a configuration, the name of one that comes with decent, or a script of your own that uses
    decent.Gossip; nothing stands for `digits`. Options stand before a script, and what follows it
    is passed on to it.

    \b
      decent launch
      decent launch digits -n 4 --set topology.rate=0.1 --compare
      decent launch -n 4 train.py --epochs 3
    """
    from decent.cli import run

    plan = run.plan(target, Options(**given), arguments)
    from decent import launcher

    engine = partial(launcher.launch, script=plan.script, arguments=list(arguments))
    ctx.exit(run.perform(plan, engine))
