"""`decent merge`: the mean of models in files."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(short_help="Merge models in files.")
@click.argument(
    "models",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="MODEL.safetensors...",
)
@click.option(
    "-o",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OUT.safetensors",
    help="File for the merged model; it must not exist.",
)
@click.option("--weights", metavar="W,W,...", help="A weight for each model.  [all alike]")
def merge(models: tuple[Path, ...], out: Path, weights: str | None) -> None:
    """Merge models of one architecture into their mean, tensor by tensor.

    \b
      decent merge a.safetensors b.safetensors -o merged.safetensors --weights 3,1
    """
    chosen = [1.0] * len(models) if weights is None else _numbers(weights)
    _check(models, out, chosen)
    from decent.learning.checkpoint import merge_files

    merge_files(models, out, chosen)
    click.echo(f"{out}: {len(models)} models merged, {out.stat().st_size / 1e6:.1f} MB")


def _numbers(weights: str) -> list[float]:
    from decent.errors import ConfigError

    try:
        return [float(weight) for weight in weights.split(",")]
    except ValueError:
        raise ConfigError(
            f"--weights {weights}", "numbers, one for each model", "write them as 3,1"
        ) from None


def _check(models: tuple[Path, ...], out: Path, weights: list[float]) -> None:
    """What needs no torch to be known."""
    from decent.errors import ConfigError, ModelError
    from decent.merge import check_weights

    check_weights(weights, len(models))
    for path in models:
        if not path.is_file():
            raise ModelError(f"{path}: no such file", "a safetensors file", "check the path")
    if out.exists():
        raise ConfigError(f"-o {out}: it exists", "a new file", "remove it, or give another -o")
