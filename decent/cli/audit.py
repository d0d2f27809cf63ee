"""`decent audit`: whether all that happened to the models of a run is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command(short_help="Balance the books of a run.")
@click.argument("run", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--edges", is_flag=True, help="Show all edges, worst first, and all findings.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_context
def audit(ctx: click.Context, run: Path, edges: bool, as_json: bool) -> None:
    """Add up the ledgers of the run in DIR: an exchange that was lost, applied twice or changed on
    its way, and parameters that changed by themselves, are found and named.

    Exits with 0 if all is accounted for, 1 if not, 2 if there is no ledger.

    \b
      decent audit runs/digits-20260101-120000
    """
    from rich.console import Console

    from decent.observe.audit import audit_as_dict, findings, verdict
    from decent.worker.audit import audit
    from decent.worker.books import read

    report = audit(read(run))
    if as_json:
        click.echo(json.dumps(audit_as_dict(report), indent=2, allow_nan=False))
    else:
        click.echo(verdict(report))
        if edges or not report.balanced:
            Console(highlight=False, soft_wrap=True).print(findings(report, edges))
    ctx.exit(int(not report.balanced))
