"""`decent simulate`: the same run in virtual time, over links as the configuration models them."""

from __future__ import annotations

from typing import Any

import click

from decent.cli.options import Options, run_options


@click.command(short_help="Train in virtual time.")
@click.argument("target", required=False, metavar="[CONFIG.toml | NAME]")
@run_options
@click.pass_context
def simulate(ctx: click.Context, /, target: str | None, **given: Any) -> None:
    """Train in virtual time: one process plays all workers, over links that are modelled.

    \b
      decent simulate digits --set topology.name=wan8 --set simulation.loss=0.01
    """
    from decent.cli import run

    plan = run.plan(target, Options(**given), scripts=False)
    from decent import simulation

    ctx.exit(run.perform(plan, simulation.simulate))
