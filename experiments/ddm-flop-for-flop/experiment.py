"""Dense against eight experts at equal training FLOPs: held-out loss, and samples.

Fashion-MNIST in 64 principal components, one residual MLP everywhere. The seed is that of clusters,
trainings and samples; classifier and test pairs are the same for all seeds.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean
from typing import Any

from torch import Tensor

from decent.experts.ensemble import Ensemble
from decent.experts.metrics import estimate
from decent.experts.prediction import Model
from decent.experts.store import Pipeline
from decent.reproduce import Progress, flows, style

Figures = dict[str, Any]
STRATEGIES = ("full", "nucleus:0.9", "threshold:0.1", "top_k:2", "top_k:1")
DRAWN = ("full", "nucleus:0.9", "threshold:0.1", "top_k:1", "ancestral")
DENSE, RANDOM, BETTER = "dense", "random shards", "ancestral, better sampler"


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    runs, judge = [], None
    for k, seed in enumerate(settings["seeds"]):
        trained = _trained(settings, seed, progress, k)
        judge = judge or flows.Judge(
            trained[DENSE].latent, samples=settings["samples"], epochs=settings["epochs"]
        )
        progress(f"samples, seed {seed}", (k + 0.7) / len(settings["seeds"]))
        runs.append(_run(settings, trained, judge))
    assert judge is not None
    rows = [_over_seeds(name, [run[name] for run in runs]) for name in runs[0]]
    models = {row["model"]: row for row in rows}
    return {
        "accuracy": judge.accuracy, "floor": judge.floor, "runs": runs, "models": models,
        "gap": max(run["full"]["difference"] for run in runs),
        "shares": _shares(runs), "table": rows,
    }  # fmt: skip


def _trained(
    settings: dict[str, Any], seed: int, progress: Progress, k: int
) -> dict[str, Pipeline]:
    common: Figures = {"seed": seed, "data": {"latent": "pca:64"}}
    whole = len(settings["seeds"])
    given = {"experts": settings["experts"], DENSE: settings[DENSE], RANDOM: settings["shards"]}
    found = {}
    for i, (name, own) in enumerate(given.items()):

        def tell(share: float, name: str = name, i: int = i) -> None:
            progress(f"training {name}, seed {seed}", (k + (i + share) * 0.7 / 3) / whole)

        found[name] = flows.trained(common | own, tell)
    return found


def _run(settings: Figures, trained: dict[str, Pipeline], judge: flows.Judge) -> Figures:
    """A row for each model of one seed."""
    experts, shards = trained["experts"], trained[RANDOM]
    dense = trained[DENSE].experts[0]
    models: dict[str, Model] = {DENSE: dense}
    models |= {name: flows.ensemble(experts, name) for name in STRATEGIES}
    models[RANDOM] = flows.ensemble(shards, "full")
    even = flows.Constant((1.0,) * len(experts.pi))
    models["uniform weights"] = Ensemble(experts.experts, even, experts.pi, "full")
    losses = {name: judge.paired(model) for name, model in models.items()}
    models["ancestral"] = flows.ensemble(experts, "ancestral")
    flops = {name: flows.training_flops(experts) for name in models}
    flops |= {name: flows.training_flops(trained[name]) for name in (DENSE, RANDOM)}
    rows = {name: _loss(losses.get(name), losses[DENSE]) for name in models}
    for name in (DENSE, *DRAWN, RANDOM):
        drawn = judge.draw(models[name], settings["steps"])
        rows[name] |= {"frechet": drawn.frechet, "active": drawn.active}
    rows[BETTER] = _loss(None, losses[DENSE])
    drawn = judge.draw(models["ancestral"], settings["steps"], settings["better"])
    rows[BETTER] |= {"frechet": drawn.frechet, "active": drawn.active}
    flops[BETTER] = flops["ancestral"]
    return {name: row | {"flops": flops[name]} for name, row in rows.items()}


def _loss(own: Tensor | None, dense: Tensor) -> Figures:
    missing: Figures = {"loss": None, "difference": None, "error": None}
    if own is not None:
        apart = estimate(own - dense)
        missing = {"loss": own.mean().item(), "difference": apart.mean, "error": apart.error}
    return missing | {"active": None, "frechet": None}


def _over_seeds(name: str, rows: list[Figures]) -> Figures:
    """The means over the seeds."""
    found: Figures = {"model": name}
    for key, label in (
        ("loss", "loss"), ("difference", "loss − dense"), ("frechet", "Fréchet distance"),
        ("active", "experts per evaluation"), ("flops", "training TFLOPs"),
    ):  # fmt: skip
        values = [row[key] for row in rows]
        found[label] = None if None in values else mean(values)
    found["training TFLOPs"] /= 1e12
    return found


def _shares(runs: list[Figures]) -> Figures:
    """Fréchet distances over that of dense; of the seeds the largest."""
    names = [name for name, row in runs[0].items() if row["frechet"] is not None]
    return {
        name: max(run[name]["frechet"] / run[DENSE]["frechet"] for run in runs) for name in names
    }


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2, width=5.2)
    rows = figures["table"]
    _bars(left, rows, "loss", "held-out loss")
    left.set_xlim(0.7, 1.0)
    _bars(right, rows, "Fréchet distance", "Fréchet distance")
    right.axvline(figures["floor"], color=style.GREY, linestyle="--")
    style.save(figure, folder / "models.svg")


def _bars(axes: Any, rows: list[Figures], key: str, label: str) -> None:
    own = [row for row in rows if row[key] is not None][::-1]
    colours = [style.VERMILION if row["model"] == DENSE else style.BLUE for row in own]
    axes.barh([row["model"] for row in own], [row[key] for row in own], color=colours)
    style.finish(axes, x=label, y="", legend=False)
