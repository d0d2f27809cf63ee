"""Quality against experts asked, for each strategy; and 1 to 16 experts at equal training FLOPs.

Fashion-MNIST in 64 principal components, one residual MLP everywhere, one seed. The batch is shared
out over the experts, so that any number of them trains on as many samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decent.experts.store import Pipeline
from decent.reproduce import Progress, flows, style

Figures = dict[str, Any]
ASKED = 8
"""experts of the ensemble that strategies are compared on"""


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    counts = settings["counts"]
    trained = {}
    for i, count in enumerate([1, *counts]):

        def tell(share: float, count: int = count, i: int = i) -> None:
            progress(f"training {count} experts", 0.6 * (i + share) / (len(counts) + 1))

        trained[count] = flows.trained(_given(settings, count), tell)
    judge = flows.Judge(trained[1].latent, samples=settings["samples"], epochs=settings["epochs"])
    progress("samples of each number", 0.6)
    rows = [_count(settings, trained, count, judge) for count in trained]
    strategies = []
    for k, name in enumerate(settings["strategies"]):
        progress(f"samples by {name}", 0.7 + 0.3 * k / len(settings["strategies"]))
        strategies.append(_strategy(settings, trained[ASKED], name, judge))
    _compare(strategies)
    return {
        "accuracy": judge.accuracy, "floor": judge.floor, "dense": rows[0],
        "strategies": {row["strategy"].replace(".", "_"): row for row in strategies},
        "counts": {str(row["experts"]): row for row in rows},
        "table": strategies, "numbers": rows,
    }  # fmt: skip


def _given(settings: Figures, count: int) -> Figures:
    common: Figures = {"seed": 0, "data": {"latent": "pca:64"}}
    if count == 1:
        return common | settings["dense"]
    own = settings["experts"]
    expert = own["expert"] | {"batch_size": settings["batch"] // count}
    return common | own | {"partition": own["partition"] | {"experts": count}, "expert": expert}


def _count(
    settings: Figures, trained: dict[int, Pipeline], count: int, judge: flows.Judge
) -> Figures:
    """The full ensemble of so many experts."""
    pipeline = trained[count]
    model = flows.ensemble(pipeline, "full")
    loss = judge.paired(model)
    dense = judge.paired(flows.ensemble(trained[1], "full"))
    drawn = judge.draw(model, settings["steps"])
    alone = judge.draw(flows.ensemble(pipeline, "ancestral"), settings["steps"])
    return {
        "experts": count, "loss": loss.mean().item(),
        "loss − dense": (loss - dense).mean().item(), "Fréchet distance": drawn.frechet,
        "the same, ancestral": alone.frechet,
        "training TFLOPs": flows.training_flops(pipeline) / 1e12,
    }  # fmt: skip


def _strategy(settings: Figures, pipeline: Pipeline, name: str, judge: flows.Judge) -> Figures:
    model = flows.ensemble(pipeline, name)
    loss = judge.paired(model).mean().item() if model.strategy.routed else None
    drawn = judge.draw(
        flows.ensemble(pipeline, name), settings["steps"], clusters=pipeline.manifest
    )
    return {
        "strategy": name, "experts per evaluation": drawn.active, "loss": loss,
        "Fréchet distance": drawn.frechet, "apart": drawn.occupied,
    }  # fmt: skip


def _compare(rows: list[Figures]) -> None:
    full = next(row["loss"] for row in rows if row["strategy"] == "full")
    for row in rows:
        row["above full"] = None if row["loss"] is None else row["loss"] - full


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2, width=5.2)
    for row in figures["table"]:
        place = row["experts per evaluation"], row["Fréchet distance"]
        left.plot(*place, "o", color=style.BLUE)
        left.annotate(row["strategy"], place, xytext=(4, 3), textcoords="offset points", fontsize=7)
    left.set_xlim(0, 10)
    left.set_yscale("log")
    style.finish(left, x="experts per evaluation", y="Fréchet distance", legend=False)
    numbers = [row["experts"] for row in figures["numbers"]]
    losses = [row["loss"] for row in figures["numbers"]]
    right.plot(numbers, losses, "o-", color=style.BLUE)
    right.set_xscale("log", base=2)
    style.finish(right, x="experts", y="held-out loss", legend=False)
    style.save(figure, folder / "strategies.svg")
