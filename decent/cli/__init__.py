"""The command line, `decent`: each command is a module here, and one word.

Each command calls one function below it, and imports it only then, so that help comes at once.
Exit codes: 0 all well; 1 the run failed or lost a worker; 2 what was given cannot be used, and
nothing was started; 130 interrupted.
"""

from __future__ import annotations

import click

from decent import __version__
from decent.cli.audit import audit
from decent.cli.bench import bench
from decent.cli.chaos import chaos
from decent.cli.experts import experts
from decent.cli.experts_train import distil, evaluate, router, train
from decent.cli.group import Decent
from decent.cli.keygen import keygen
from decent.cli.launch import launch
from decent.cli.merge import merge
from decent.cli.reproduce import reproduce
from decent.cli.sample import sample
from decent.cli.serve import serve
from decent.cli.simulate import simulate
from decent.cli.tasks import tasks
from decent.cli.topology import topology


@click.group(cls=Decent, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="decent")
def main() -> None:
    """Train one model on machines that are not one cluster.

    Workers train at their own pace on their own data, exchange models with their peers now and
    then, and are merged into one model once, at the end.
    """


for command in (
    launch, simulate, audit, chaos, experts, sample, serve, topology, keygen, merge, tasks, bench,
    reproduce,
):  # fmt: skip
    main.add_command(command)
for command in (train, router, distil, evaluate):
    experts.add_command(command)
