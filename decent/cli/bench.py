"""`decent bench`: what gossip and an exchange cost on this machine, how fast simulations are, and
what a long run keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import click


@click.group(short_help="Measure, against the alternative in the same run.")
def bench() -> None:
    """Measurements that print medians and ratios against the alternative in the same run."""


@bench.command(short_help="A training loop with gossip and without.")
@click.option(
    "--case",
    type=click.Choice(["packed", "spare"]),
    default="packed",
    show_default=True,
    help="packed: both workers train; spare: the second only answers, which leaves a core free.",
)
@click.option("--params", default=25_000_000, show_default=True, help="Parameters of the model.")
@click.option("--batch", default=64, show_default=True, help="Samples of a step.")
@click.option("--steps", default=20, show_default=True, help="Steps of a round, each way.")
@click.option("--rounds", default=4, show_default=True, help="Rounds, with and without in turn.")
@click.option("--rate", default=1.0, show_default=True, help="Exchanges per step and worker.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def gossip(
    case: str, params: int, batch: int, steps: int, rounds: int, rate: float, as_json: bool
) -> None:
    """Two real workers of this machine train a large MLP with and without gossip, in turn."""
    from decent.bench import bench_gossip

    figures = bench_gossip(case, params, batch, steps, rounds, rate)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        shown = f"{value:.3f}" if isinstance(value, float) else str(value)
        click.echo(f"{name.replace('_', ' '):<22}{shown:>14}")


@bench.command(short_help="The ideal simulation against the plain way of doing the same.")
@click.option("--rounds", default=5, show_default=True, help="Measurements of each, in turn.")
@click.option("--workers", default=1024, show_default=True, help="Workers that train on digits.")
@click.option("--most", default=4096, show_default=True, help="Workers that growth goes up to.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def simulate(rounds: int, workers: int, most: int, threads: int, as_json: bool) -> None:
    """DADAO against one event at a time, a thousand models against plain training, how time grows
    from 64 workers to 4,096, and 10,000 workers' memory."""
    from decent.bench import bench_simulate

    note = partial(click.echo, err=True)
    _print(bench_simulate(rounds, workers, most, threads, note), as_json)


def _print(figures: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    for name, value in _flat(figures):
        shown = f"{value:.4g}" if isinstance(value, (int, float)) else value
        click.echo(f"{name:<58}{shown:>14}")


def _flat(figures: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    """Every figure, under its dotted name."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, list):
            for each in value:
                yield from _flat(each, f"{path}{name}.{each['workers']}.")
        else:
            yield f"{path}{name}".replace("_", " "), value


@bench.command(short_help="An exchange against torch.distributed, or hivemind.")
@click.option("--params", default=25_000_000, show_default=True, help="Values of float32.")
@click.option("--rounds", default=7, show_default=True, help="Measurements of each, in turn.")
@click.option(
    "--dynamics", type=click.Choice(["gossip", "a2cid2"]), default="gossip", show_default=True
)
@click.option("--chunk-kib", type=int, help="Size of the pieces; else what a run takes.")
@click.option(
    "--codec",
    "in_codecs",
    multiple=True,
    default=["exact", "bf16"],
    show_default=True,
    help="What is sent over TCP; may be repeated.",
)
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(["gloo", "hivemind"]),
    default=["gloo"],
    show_default=True,
    help="What to compare with; may be repeated.",
)
@click.option("--ledger/--no-ledger", default=True, show_default=True, help="Keep the books.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def exchange(as_json: bool, **settings: Any) -> None:
    """Two processes exchange a vector: ours through shared memory and over TCP, gloo's all-reduce
    and gloo's send and receive, or hivemind's averaging, in turn."""
    from decent.bench import bench_exchange

    _print(bench_exchange(**settings), as_json)


@bench.command(short_help="An ensemble of diffusion experts against one dense model.")
@click.option("--network", type=click.Choice(["mlp", "dit"]), default="dit", show_default=True)
@click.option("--width", default=96, show_default=True, help="Of the network.")
@click.option("--batch", default=256, show_default=True, help="Samples.")
@click.option("--rounds", default=7, show_default=True, help="Measurements of each, in turn.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def experts(as_json: bool, **settings: Any) -> None:
    """Top-1 of eight experts against one forward of a model of their size, and all of them against
    eight forwards."""
    from decent.bench.experts import bench_experts

    _print(bench_experts(**settings), as_json)


@bench.command(short_help="What a long run at full rate keeps: memory, files.")
@click.option("--minutes", default=30.0, show_default=True, help="How long the workers train.")
@click.option("--workers", default=2, show_default=True, help="How many there are.")
@click.option("--params", default=2_000_000, show_default=True, help="Values of float32.")
@click.option("--codec", default="exact", show_default=True, help="What exchanges are sent in.")
@click.option("--shared-memory/--no-shared-memory", default=True, show_default=True)
@click.option("--rate", default=4.0, show_default=True, help="Models to be sent per step of 20 ms.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def soak(
    minutes: float,
    workers: int,
    params: int,
    codec: str,
    shared_memory: bool,
    rate: float,
    as_json: bool,
) -> None:
    """Real workers exchange back to back. Memory, open files and journals of each process after two
    minutes and at the end, and the difference."""
    from decent.bench import bench_soak

    note = partial(click.echo, err=True)
    figures = bench_soak(minutes, workers, params, codec, shared_memory, rate, note)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
        return
    click.echo(f"{'':<30}{'early':>14}{'end':>14}{'difference':>14}")
    early, end, grown = (dict(_flat(figures[part])) for part in ("early", "end", "difference"))
    for name, value in end.items():
        click.echo(f"{name:<30}{early[name]:>14,.4g}{value:>14,.4g}{grown[name]:>14,.4g}")
