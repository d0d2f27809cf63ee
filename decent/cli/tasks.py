"""`decent tasks`: what can be trained without writing a line."""

from __future__ import annotations

import json
from dataclasses import asdict

import click


@click.command(short_help="List the built-in tasks.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def tasks(as_json: bool) -> None:
    """List the built-in tasks: options, their defaults, and whether the data is there."""
    from rich.console import Console

    from decent import observe
    from decent.learning.task import available

    entries = available()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2, default=str))
    else:
        Console(highlight=False).print(observe.tasks(entries))
