"""`decent simulate`: a run in virtual time; links are modelled, or exchanges take no time."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from decent.cli.options import Options, run_options


@click.command(short_help="Train in virtual time.")
@click.argument("target", required=False, metavar="[CONFIG.toml | NAME]")
@run_options
@click.option(
    "--ideal", is_flag=True, help="Exchanges take no time: thousands of workers, as in the papers."
)
@click.option(
    "--checkpoint-every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="T",
    help="With --ideal: keep a checkpoint every T expected steps, and at Ctrl-C.",
)
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Go on with the run in DIR from its checkpoint.",
)
@click.option(
    "--events",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Run DADAO on the data and events of a file, and compare with the trajectory in it.",
)
@click.pass_context
def simulate(
    ctx: click.Context,
    /,
    target: str | None,
    ideal: bool,
    checkpoint_every: float | None,
    resume: Path | None,
    events: Path | None,
    **given: Any,
) -> None:
    """Train in virtual time: one process plays all workers, over links that are modelled, or with
    exchanges that take no time.

    \b
      decent simulate digits --set topology.name=wan8 --set simulation.loss=0.01
      decent simulate ridge -n 1000
    """
    from decent.cli import run

    if events is not None:
        _replay(events, given["as_json"])
        return
    if ideal:
        given["settings"] = (*given["settings"], "simulation.fidelity=ideal")
    options = Options(**given)
    if resume is not None and target is None:
        plan = run.resumed(resume, options)
    elif resume is not None:
        raise click.UsageError("--resume goes on with a run: give no configuration beside it")
    else:
        plan = run.plan(target, options, scripts=False)
    if (checkpoint_every or plan.resumes) and not plan.ideal:
        wanted = "--resume" if plan.resumes else "--checkpoint-every"
        raise click.UsageError(f"{wanted} needs --ideal, and no [method]")
    from decent import simulation

    engine = simulation.simulate
    if plan.ideal:
        engine = partial(engine, checkpoint_every=checkpoint_every, resume=plan.resumes)
    ctx.exit(run.perform(plan, engine))


def _replay(file: Path, as_json: bool) -> None:
    from decent.simulation.ideal.replay import replay

    found = replay(file)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(
        f"{found['workers']} workers, {found['gradients']} gradients, "
        f"{found['exchanges']} exchanges\n"
        f"largest relative deviation of the error curve   {found['error_deviation']:.1e}\n"
        f"largest relative deviation of the final state   {found['state_deviation']:.1e}"
    )
