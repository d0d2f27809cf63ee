"""`decent experts train | router | distil | evaluate`: what is learned in an ensemble's folder, and
how good it is."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decent.cli.experts import A_FOLDER, modules

if TYPE_CHECKING:
    from decent.experts.work import Options

FOLDER = click.argument("folder", type=A_FOLDER, metavar="DIR")
AGAIN = click.option("--again", is_flag=True, help="Train from the start what is trained already.")
COUNT = click.IntRange(min=1)
STEPS = click.option("--steps", type=COUNT, metavar="N", help="Steps.  [those of an expert]")
BATCH = click.option("--batch-size", type=COUNT, metavar="N", help="Samples to a step.")
DEVICE = click.option(
    "--device", default="cpu", show_default=True, metavar="D", help="Such as cuda or cuda:1."
)


@click.command(short_help="Train the experts, each by itself.")
@FOLDER
@click.option(
    "--expert", "chosen", multiple=True, type=click.IntRange(min=0), metavar="K",
    help="Train expert K alone; repeatable.  [all]",
)  # fmt: skip
@click.option(
    "--parallel", type=COUNT, metavar="P",
    help="Processes at a time.  [one to a core, or to a device]",
)  # fmt: skip
@click.option(
    "--device", default="cpu", show_default=True, metavar="D[,D…]",
    help="Where to train; trainings share out several, such as cuda:0,cuda:1.",
)  # fmt: skip
@click.option("--dense", is_flag=True, help="In place of experts, one model on all of the data.")
@STEPS
@BATCH
@AGAIN
@click.pass_context
def train(
    ctx: click.Context, folder: Path, chosen: tuple[int, ...], parallel: int | None, dense: bool,
    steps: int | None, batch_size: int | None, again: bool, device: str,
) -> None:  # fmt: skip
    """Train the experts of DIR in processes that share nothing.

    Experts that are trained are skipped, and what was broken off goes on: the same command again
    finishes what is left. Expert K is the same to the bit whatever else is trained.

    \b
      decent experts train ensemble --parallel 2
      decent experts train ensemble --expert 3
      decent experts train ensemble --dense --device cuda
    """
    from decent.errors import ConfigError
    from decent.experts import manifest, store
    from decent.experts.work import Options

    count = manifest.read(folder).experts
    if dense and chosen:
        raise click.UsageError("--dense is one model on all of the data: give no --expert")
    if not dense and (steps or batch_size):
        raise click.UsageError("--steps and --batch-size go with --dense; settings.toml has those")
    if wrong := [k for k in chosen if k >= count]:
        raise ConfigError(f"--expert {wrong[0]}", f"0 to {count - 1}")
    names = [store.DENSE] if dense else [store.expert(k) for k in chosen or range(count)]
    options = Options(steps=steps, batch_size=batch_size, device=device)
    ctx.exit(_train(folder, list(dict.fromkeys(names)), parallel, again, options))


@click.command(short_help="Train the router.")
@FOLDER
@click.option(
    "--from-experts", type=COUNT, metavar="N",
    help="Train it on N samples that the experts draw, without the data.",
)  # fmt: skip
@AGAIN
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print its calibration as JSON.")
@click.pass_context
def router(
    ctx: click.Context, folder: Path, from_experts: int | None, again: bool, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """Train the router of DIR, and say how right and how sure it is at each time."""
    from rich.console import Console

    from decent import observe
    from decent.experts import store
    from decent.experts.work import Options
    from decent.learning.devices import known

    options = Options(from_experts=from_experts, device=str(known(device)))
    code = _train(folder, [store.ROUTER], 1, again, options)
    if code:
        ctx.exit(code)
    if from_experts is not None:
        return
    from decent.experts.evaluation import router_report

    report = router_report(folder, device)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        Console(highlight=False).print(observe.calibration(report))


@click.command(short_help="Train one dense student of the ensemble.")
@FOLDER
@STEPS
@BATCH
@AGAIN
@DEVICE
@click.pass_context
def distil(
    ctx: click.Context, folder: Path, steps: int | None, batch_size: int | None, again: bool,
    device: str,
) -> None:  # fmt: skip
    """Train one model on what the experts answer, each on the samples of its own cluster."""
    from decent.experts import store
    from decent.experts.work import Options

    options = Options(steps=steps, batch_size=batch_size, device=device)
    ctx.exit(_train(folder, [store.STUDENT], 1, again, options))


@click.command(short_help="Compare strategies by their held-out loss.")
@FOLDER
@click.option(
    "--strategy", "strategies", multiple=True, metavar="STRATEGY",
    help="Such as full or threshold:0.1; repeatable.  [some of each kind]",
)  # fmt: skip
@click.option("-n", "count", type=COUNT, metavar="N", help="Samples, at most.  [10000]")
@click.option(
    "--bits", type=click.IntRange(min=2), metavar="N",
    help="Bits per dimension too, on N of them: the likelihood through each flow.",
)  # fmt: skip
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def evaluate(
    folder: Path, strategies: tuple[str, ...], count: int | None, bits: int | None, device: str,
    as_json: bool,
) -> None:  # fmt: skip
    """The flow-matching loss on held-out samples, always with the same noise and times: of the
    ensemble by each strategy, and of the dense model and the student where they are trained."""
    from rich.console import Console

    from decent import observe
    from decent.experts.evaluation import COUNT, STRATEGIES, evaluate

    console = Console(stderr=True, highlight=False)
    with observe.busy(console, "evaluating"):
        report = evaluate(folder, strategies or STRATEGIES, count or COUNT, device, bits or 0)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        Console(highlight=False).print(observe.losses(report))


def _train(
    folder: Path, names: Sequence[str], parallel: int | None, again: bool, options: Options
) -> int:
    """Train and show it; the exit code."""
    from rich.console import Console

    from decent import observe
    from decent.experts import isolated, manifest, store

    manifest.read(folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(stderr=True, highlight=False)
    with observe.training(console) as shown:
        statuses = isolated.train(
            folder, names, parallel or _at_a_time(options.device), again, options, shown
        )
    failed = [each for each in statuses if each["state"] == "failed"]
    for each in failed:
        click.echo(f"decent: error: {each['name']} {each['what']}", err=True)
    trained = store.trained(folder, manifest.read(folder).experts)
    console.print(observe.modules(modules(names, trained)))
    if failed:
        lacking = ", ".join(each["name"] for each in failed)
        click.echo(f"\nnot finished: {lacking}. The same command again goes on with it", err=True)
    return int(bool(failed))


def _at_a_time(device: str) -> int:
    """One training to a core, or to each device with commas between."""
    return (os.cpu_count() or 1) if device == "cpu" else device.count(",") + 1
