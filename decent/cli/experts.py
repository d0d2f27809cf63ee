"""`decent experts`: data divided among experts that are trained apart, and what came of it.

`experts` is a group. A command of another module joins it there, and that module is imported where
`decent.cli` is put together:

    from decent.cli.experts import experts

    @experts.command()
    def train(…): …
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decent.cli.folder import new_folder
from decent.cli.group import Decent

if TYPE_CHECKING:
    from decent.experts.manifest import Manifest
    from decent.experts.store import Record

A_FOLDER = click.Path(path_type=Path)


@click.group(cls=Decent, short_help="Divide data among diffusion experts; train them.")
def experts() -> None:
    """Diffusion experts, each trained on its own part of the data, and one ensemble of them."""


@experts.command(short_help="Divide the data.")
@click.argument("settings", metavar="SETTINGS.toml | NAME")
@click.option("-o", "out", type=A_FOLDER, metavar="DIR", help="New folder.  [runs/NAME-TIME]")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the settings, such as partition.experts=4; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the manifest as JSON, alone.")
def partition(settings: str, out: Path | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Divide the data of SETTINGS among K experts, and write who has what to a folder.

    \b
      decent experts partition digits -o ensemble --set partition.experts=4
    """
    from rich.console import Console

    from decent import observe
    from decent.experts import partition as dividing
    from decent.experts import settings as reading

    chosen = reading.load(settings, overrides)
    console = Console(stderr=True, highlight=False)
    with new_folder(out, f"experts-{Path(settings).stem}") as folder:
        with observe.telling(console) as tell:
            manifest = dividing.partition(chosen, folder.path, tell)
        folder.keep = True
    if as_json:
        click.echo(json.dumps(_facts(manifest), indent=2))
        return
    shown = observe.clusters(_clusters(manifest), manifest.held_out)
    Console(highlight=False).print(shown)
    click.echo(f"\n{folder.path}: {manifest.count:,} samples of {manifest.source}")


@experts.command(short_help="What an ensemble's folder holds.")
@click.argument("folder", type=A_FOLDER, metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def show(folder: Path, as_json: bool) -> None:
    """The clusters of an ensemble, and which experts and router are trained."""
    from rich.console import Console

    from decent import observe
    from decent.experts import manifest as reading
    from decent.experts import store

    manifest = reading.read(folder)
    trained = store.trained(folder, manifest.experts)
    needed = [*map(store.expert, range(manifest.experts)), store.ROUTER]
    entries = modules(dict.fromkeys([*needed, *trained]), trained)
    if as_json:
        click.echo(json.dumps(_facts(manifest) | {"modules": entries}, indent=2))
        return
    console = Console(highlight=False)
    console.print(observe.clusters(_clusters(manifest), manifest.held_out), "")
    console.print(observe.modules(entries))


def _facts(manifest: Manifest) -> dict[str, Any]:
    names = [name for name in manifest.__struct_fields__ if name != "tensors"]
    return {name: getattr(manifest, name) for name in names}


def _clusters(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {"name": str(k), "samples": size, "pi": share}
        for k, (size, share) in enumerate(zip(manifest.sizes, manifest.pi, strict=True))
    ]


def modules(names: Iterable[str], trained: Mapping[str, Record]) -> list[dict[str, Any]]:
    """What is known of each, trained or not."""
    keys = ("network", "steps", "loss", "seconds", "multiply_adds", "digest")
    return [
        {"name": name, **{key: getattr(trained.get(name), key, None) for key in keys}}
        for name in names
    ]
