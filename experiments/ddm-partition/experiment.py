"""Ten experts on clusters of features, on the ten classes, and on random parts, against one dense
model, at equal training FLOPs.

Fashion-MNIST in 64 principal components, one residual MLP everywhere, one seed. Parts drawn by
chance need no router, as all that could be known of them are their shares; that spares them 12 %.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from decent.experts.store import Pipeline
from decent.reproduce import Progress, flows, style

Figures = dict[str, Any]
DENSE = "dense"


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    names = [DENSE, *settings["methods"]]
    trained = {}
    for i, name in enumerate(names):

        def tell(share: float, name: str = name, i: int = i) -> None:
            progress(f"training by {name}", 0.7 * (i + share) / len(names))

        trained[name] = flows.trained(_given(settings, name), tell)
    judge = flows.Judge(
        trained[DENSE].latent, samples=settings["samples"], epochs=settings["epochs"]
    )
    dense = judge.paired(flows.ensemble(trained[DENSE], "full"))
    rows = []
    for i, (name, pipeline) in enumerate(trained.items()):
        progress(f"samples of {name}", 0.7 + 0.3 * i / len(names))
        rows.append(_row(settings, name, pipeline, dense, judge))
    return {
        "accuracy": judge.accuracy, "floor": judge.floor,
        "methods": {row["parts"]: row for row in rows}, "table": rows,
    }  # fmt: skip


def _given(settings: Figures, name: str) -> Figures:
    common: Figures = {"seed": 0, "data": {"latent": "pca:64"}}
    if name == DENSE:
        return common | settings["dense"]
    own = settings["experts"]
    return common | own | {"partition": own["partition"] | {"method": name}}


def _row(
    settings: Figures, name: str, pipeline: Pipeline, dense: Tensor, judge: flows.Judge
) -> Figures:
    loss = judge.paired(flows.ensemble(pipeline, "full"))
    return {
        "parts": name, "loss": loss.mean().item(), "loss − dense": (loss - dense).mean().item(),
        "Fréchet distance, full": _drawn(settings, pipeline, "full", judge),
        "ancestral": _drawn(settings, pipeline, "ancestral", judge),
        "training TFLOPs": flows.training_flops(pipeline) / 1e12,
    }  # fmt: skip


def _drawn(settings: Figures, pipeline: Pipeline, strategy: str, judge: flows.Judge) -> float:
    return judge.draw(flows.ensemble(pipeline, strategy), settings["steps"]).frechet


def plot(figures: Figures, folder: Path) -> None:
    figure, (left, right) = style.panels(2, width=4.6)
    for axes, key in ((left, "loss"), (right, "Fréchet distance, full")):
        rows = figures["table"][::-1]
        colours = [style.VERMILION if row["parts"] == DENSE else style.BLUE for row in rows]
        axes.barh([row["parts"] for row in rows], [row[key] for row in rows], color=colours)
        style.finish(axes, x=f"held-out {key}" if key == "loss" else key, y="", legend=False)
    left.set_xlim(0.7, 1.0)
    style.save(figure, folder / "partition.svg")
