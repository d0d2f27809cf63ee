"""`decent serve`: experts for others to ask."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Serve experts to others.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--expert",
    "numbers",
    type=click.IntRange(min=0),
    multiple=True,
    required=True,
    metavar="K",
    help="An expert to serve; may be given again.",
)
@click.option(
    "--listen",
    default="tcp://127.0.0.1:*",
    show_default=True,
    metavar="ADDRESS",
    help="Where; a port of * is chosen by the system.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A secret key of `decent keygen`.  [off loopback: a fresh one]",
)
@click.option(
    "--allow", multiple=True, metavar="PUBLICKEY", help="A key that may ask; may be given again."
)
@click.option("--insecure", is_flag=True, help="Neither encrypt nor ask for keys.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of torch."
)
@click.option("--device", default="cpu", show_default=True, help="Where the experts are.")
def serve(folder: Path, numbers: tuple[int, ...], listen: str, key: Path | None,
          allow: tuple[str, ...], insecure: bool, threads: int, device: str) -> None:  # fmt: skip
    """Answer for experts of the ensemble in DIR, until Ctrl-C. Off loopback, everything is
    encrypted and only the keys allowed come in.

    \b
      decent serve ddm --expert 0
      decent serve ddm --expert 2 --expert 3 --listen tcp://10.0.0.1:5555 \\
        --key island.key --allow 'PUBLICKEY'
    """
    from decent.experts.remote import serving

    door = serving.door(listen, key, allow, insecure)
    experts = serving.experts(folder, numbers, device, threads)
    with serving.listening(experts, door, device) as server:
        click.echo(f"listening on {server.address}")
        for number, expert in experts.items():
            click.echo(f"expert {number}: digest {expert.digest}")
        click.echo(f"public key: {door.keys.public}" if door.keys else "not encrypted")
        try:
            server.run(click.echo)
        finally:
            click.echo(f"ended: {server.counts}")
