"""`decent keygen`: a pair of keys for one worker."""

from __future__ import annotations

import click


@click.command(short_help="Make a pair of keys.")
@click.option(
    "-o", "name", default="decent", metavar="NAME", help="Writes NAME.key and NAME.pub.  [decent]"
)
def keygen(name: str) -> None:
    """Make a pair of keys for a worker that is reached over a network.

    NAME.key holds the secret key and stays with the worker (runtime.keys); the public one, in
    NAME.pub and printed, goes into the file of the topology, as `key` of that worker.

    \b
      decent keygen -o london
    """
    from decent import keys
    from decent.transport.curve import new_keys

    pair = new_keys()
    secret, public = keys.write(pair, name)
    click.echo(pair.public)
    click.echo(f"{secret}: keep it to yourself; {public}: for the topology", err=True)
