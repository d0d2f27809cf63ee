"""`decent chaos`: a real run under faults drawn from a seed, and whether what is left adds up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decent.cli.options import Options
from decent.folder import write_atomic

if TYPE_CHECKING:
    from decent.chaos import Wanted
    from decent.cli.run import Plan


@click.command(short_help="Train under faults, and audit what is left.")
@click.argument("target", required=False, metavar="[CONFIG.toml | NAME]", default="chaos")
@click.option(
    "--faults",
    "kinds",
    default="kill,pause,partition,delay,duplicate,corrupt,reorder,slow",
    show_default=True,
    metavar="KINDS",
    help="What may happen.",
)
@click.option("--rate", default=4.0, show_default=True, help="Faults per second.")
@click.option("--duration", default=30.0, show_default=True, help="Seconds of training.")
@click.option(
    "--seed", type=click.IntRange(min=0), metavar="N", help="Seed of the run and of its faults."
)
@click.option("-n", "--workers", type=int, metavar="N", help="How many workers.")
@click.option(
    "--codec",
    type=click.Choice(["exact", "fp32", "bf16", "fp16", "int8", "topk"]),
    help="What exchanges are sent in.",
)
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Send payloads through shared memory, headers alone through the faults.",
)
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for the run, new or empty.  [runs/NAME-TIME]",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Set a key of the configuration."
)
@click.option("--json", "as_json", is_flag=True, help="Print the verdict as JSON, alone.")
@click.pass_context
def chaos(
    ctx: click.Context,
    /,
    target: str,
    kinds: str,
    rate: float,
    duration: float,
    shared_memory: bool,
    codec: str | None,
    **given: Any,
) -> None:
    """Train with real processes while their messages are delayed, damaged, repeated and lost, and
    they themselves stopped and killed; then audit what is left. The seed settles all faults.

    Exits with 0 if nothing hung, the survivors' books balance and they have merged; 1 if not.

    \b
      decent chaos
      decent chaos --rate 5 --duration 100 --seed 3 --codec int8
      decent chaos digits -n 6 --faults partition,pause --json
    """
    from rich.console import Console

    from decent import chaos as room
    from decent.chaos.faults import check_kinds
    from decent.cli import run
    from decent.cli.group import INTERRUPTED
    from decent.observe.chaos import verdict

    settings = (*given.pop("settings"), *([f"exchange.codec={codec}"] if codec else []))
    made = run.plan(target, Options(settings=settings, **given), scripts=False)
    wanted = room.Wanted(check_kinds(kinds), rate, duration)
    made = replace(made, config=room.prepared(made.config, wanted, shared_memory))
    found, folder = _watched(made, wanted)
    if given["as_json"]:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        Console(highlight=False, soft_wrap=True).print(verdict(found))
    click.echo(f"\nrun folder: {folder}", err=given["as_json"])
    ctx.exit(INTERRUPTED if found["interrupted"] else int(not found["ok"]))


def _watched(made: Plan, wanted: Wanted) -> tuple[dict[str, Any], Path]:
    """Make the run and show how it goes; the verdict, and the run's folder."""
    from rich.console import Console

    from decent import chaos as room
    from decent import observe
    from decent.cli.folder import new_folder

    names = [made.topology.name(i) for i in range(made.topology.n)]
    view = observe.view(Console(stderr=True, highlight=False), made.title, names)
    with new_folder(made.options.out, made.name) as folder, view:
        write_atomic(folder.path / "config.toml", made.config.to_toml().encode())

        def on_status(statuses: list[dict[str, Any]], faults: int) -> None:
            folder.keep = folder.keep or any(each.get("step") for each in statuses)
            view.note = f"{faults} faults"
            view(statuses)

        found = room.chaos(made.config, wanted, folder.path, on_status=on_status)
    return found, folder.path
