"""`decent launch`: a run of real processes, from a configuration or around a script."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from decent.cli.options import Options, run_options

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
    _check_insecure(plan.config, plan.options)
    from decent import launcher

    engine = partial(launcher.launch, script=plan.script, arguments=list(arguments))
    ctx.exit(run.perform(plan, engine))


def _check_insecure(config: Config, options: Options) -> None:
    """A configuration may come from someone else: it alone must not turn encryption off."""
    from decent.errors import ConfigError

    if config.runtime.insecure and not options.insecure:
        raise ConfigError(
            "runtime.insecure = true in the configuration", "--insecure on the command line",
            "type it to encrypt nothing, or remove the key",
        )  # fmt: skip
