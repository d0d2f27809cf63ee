"""`decent sample`: draw samples from an ensemble of experts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decent.errors import ConfigError

if TYPE_CHECKING:
    from decent.experts.sampling import Samples
    from decent.experts.solvers import Progress
    from decent.experts.store import Pipeline

STRATEGIES = "full, top_k:n, nucleus:q, threshold:p, sample:n, ancestral; or full@0.7, top_k:1"


@click.command(short_help="Draw samples from an ensemble of experts.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-n", "count", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--strategy", metavar="S", help=f"{STRATEGIES}.  [the settings']")
@click.option("--steps", type=click.IntRange(min=1), help="Steps from noise to data.")
@click.option("--method", metavar="M", help="euler, heun, adaptive or adaptive:tolerance.")
@click.option("--guidance", type=float, help="Scale of guidance towards the label; 1 is none.")
@click.option("--label", metavar="C|all", help="A class, or all of them in turn.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), help="Samples drawn at once.  [all]")
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--experts",
    "hosts",
    type=click.Path(path_type=Path),
    metavar="HOSTS.toml",
    help="Experts served elsewhere, by `decent serve`.",
)
@click.option(
    "--migrate",
    type=click.IntRange(min=1),
    metavar="R",
    help="Hand each sample to its likeliest expert for R steps at a time, there and back.",
)
@click.option("--insecure", is_flag=True, help="Encrypt nothing, not even off this machine.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    default="samples.png",
    show_default=True,
    metavar="OUT",
    help="A .png, for images, or .safetensors; a .json beside it says how they were drawn.",
)
def sample(folder: Path, out: Path, seed: int, batch: int | None, **given: Any) -> None:
    """Draw samples from the ensemble in DIR, as its settings say where no option does.

    \b
      decent sample runs/clothes -n 64 --strategy nucleus:0.9 --seed 0 -o out.png
      decent sample runs/clothes --label all --guidance 2 --method heun --steps 20
      decent sample runs/clothes --experts hosts.toml --strategy top_k:1
    """
    from decent.experts import results
    from decent.experts.sampling import sample as draw
    from decent.experts.store import open_pipeline

    pipeline = open_pipeline(folder, given["device"], lazy=given["hosts"] is not None)
    results.check(out, pipeline.latent.facts.data_shape)
    usual = pipeline.settings.sampling
    if given["label"] is None and given["guidance"] not in (None, 1.0):
        raise ConfigError(f"--guidance {given['guidance']:g}", "a --label to guide towards")
    labels = results.labels(given["label"], given["count"], pipeline.classes)
    chosen = {
        name: getattr(usual, name) if given[name] is None else given[name]
        for name in ("steps", "method", "guidance")
    }
    if labels is None:
        chosen["guidance"] = 1.0
    shape = (given["count"], *pipeline.latent.shape)
    with _experts(pipeline, given["hosts"], given["insecure"]) as whole, _progress() as on_step:
        if given["migrate"] is not None:
            _check_migrating(given["strategy"], batch, chosen)
            drawn = _migrating(whole, shape, given["migrate"], labels, seed, chosen)
        else:
            drawn = draw(
                whole.ensemble(given["strategy"]), shape,
                condition=labels, seed=seed, batch=batch, on_step=on_step, **chosen,
            )  # fmt: skip
    metadata = {"ensemble": str(folder), "label": given["label"]} | drawn.metadata
    results.write(out, pipeline.latent.decode(drawn.x), metadata, labels)
    click.echo(_told(out, metadata))


def _check_migrating(strategy: str | None, batch: int | None, chosen: dict[str, Any]) -> None:
    """Samples that travel are drawn by top-1 and Euler, all at once."""
    asked = {"strategy": strategy, "batch": batch, **chosen}
    only = {"strategy": "top_k:1", "batch": None, "method": "euler"}
    for name, value in only.items():
        if asked[name] not in (None, value):
            raise ConfigError(
                f"--migrate with {name} = {asked[name]}",
                "the strategy top_k:1, the method euler and no batches",
                "one expert takes several steps by itself",
            )


def _migrating(
    whole: Pipeline, shape: tuple[int, ...], every: int, labels: Any, seed: int,
    chosen: dict[str, Any],
) -> Samples:  # fmt: skip
    from decent.experts.draw import Draw
    from decent.experts.remote import sample_migrating

    if whole.router is None:
        raise ConfigError("--migrate without a router", "one", "see `decent experts router`")
    noise = Draw.of(seed, range(shape[0])).normal(shape[1:]).float()
    return sample_migrating(
        whole.router, whole.experts, noise, chosen["steps"], every, labels, chosen["guidance"], seed
    )


@contextmanager
def _experts(pipeline: Pipeline, hosts: Path | None, insecure: bool) -> Iterator[Pipeline]:
    """The pipeline with its own experts, or with those that `hosts` serve."""
    if hosts is None:
        yield pipeline
        return
    from decent.experts import remote

    with remote.connect(hosts, len(pipeline.pi), pipeline.records, insecure) as experts:
        yield replace(pipeline, experts=experts)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("sampling", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _told(out: Path, metadata: dict[str, Any]) -> str:
    """One line about the samples, and one for each expert lost."""
    lines = [
        f"{out}: {metadata['shape'][0]} samples, {metadata['evaluations']} evaluations, "
        f"{metadata['active']:.2f} experts a sample in each"
    ]
    lines += [f"expert {k} was lost {why}" for k, why in metadata["lost"].items()]
    if metadata["restarted"]:
        lines.append(f"{len(metadata['restarted'])} samples were started again without it")
    return "\n".join(lines)
