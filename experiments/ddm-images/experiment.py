"""Diffusion transformers on images, conditioned on the class: K experts and a router against one
dense model of the same size.

All is trained in the folder of an ensemble, runs/ddm-images-DIGEST, as `decent experts` would; what
is there already is taken as it is, and what was broken off goes on. With m the multiply-adds of one
forward, b the batch and S the steps, the dense model takes batches of K·b and as many steps as pay
for the router too:

    S_dense = ⌈(K·b·S·m + b_r·S_r·m_r) / (K·b·m)⌉

Fréchet distances are of the 64 features of a small classifier, samples against the data's tests;
the floor is that of as many training images.
"""

from __future__ import annotations

import hashlib
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from decent import toml
from decent.experts import evaluation, networks, pictures, store, work
from decent.experts import settings as reading
from decent.experts.metrics import PairedLoss, estimate, frechet, multiply_adds
from decent.experts.partition import Divided, partition, reopen
from decent.experts.prediction import Model
from decent.experts.sampling import sample
from decent.experts.settings import Settings, TrainingTable
from decent.experts.sources import Data
from decent.reproduce import Progress, style

Figures = dict[str, Any]
BATCH = 500  # samples drawn together
LEARNT = 128  # images in a batch of the classifier
FLOPS = 6  # of training, for each multiply-add of a forward: 2 forward, 4 backward


def measure(settings: dict[str, Any], progress: Progress) -> Figures:
    folder = _trained(settings["ensemble"], progress)
    divided, pipeline = reopen(folder), store.open_pipeline(folder)
    progress("held-out losses", 0.8)
    models: dict[str, Model] = {store.DENSE: store.load(folder / store.DENSE)[0]}
    models |= {name: pipeline.ensemble(name) for name in settings["strategies"]}
    losses = _losses(divided, folder, models | {"full": pipeline.ensemble("full")}, settings)
    progress("a classifier", 0.85)
    judge = Judge(divided.data, settings["samples"], settings["epochs"], divided.settings.seed)
    rows = []
    for number, (name, scale) in enumerate(product(models, settings["guidance"])):
        progress(f"samples of {name}, guidance {scale:g}", 0.88 + 0.02 * number)
        rows.append(_drawn(divided, judge, name, models[name], scale, folder, settings))
    return {
        "folder": str(folder),
        "pi": divided.manifest.pi,
        "training": _costs(pipeline.records, divided.settings),
        "losses": losses,
        "accuracy": judge.accuracy,
        "floor": judge.floor,
        "frechet": {f"{row['model']} {row['guidance']:g}": row["frechet"] for row in rows},
        "table": [_row(row, losses) for row in rows],
    }


def _row(row: Figures, losses: dict[str, Figures]) -> Figures:
    """Of the table; losses are those of the field, without guidance."""
    own = losses[row["model"]]
    same = row["guidance"] == 1
    return {
        "model": row["model"],
        "guidance": row["guidance"],
        "held-out loss": f"{own['loss']:.4f}" if same else None,
        "less than dense by": f"{own['gain']:.4f} ± {own['error']:.4f}"
        if same and row["model"] != store.DENSE else None,
        "experts per step": row["active"],
        "Fréchet distance": row["frechet"],
        "right class": f"{row['right']:.1%}",
    }  # fmt: skip


def _losses(
    divided: Divided, folder: Path, models: dict[str, Model], settings: dict[str, Any]
) -> dict[str, Figures]:
    """On the same held-out images, noise and times; `gain` is dense less this one."""
    x, condition, _ = evaluation.held_out(divided, folder, settings["pairs"])
    paired = PairedLoss(x, condition, divided.settings.seed)
    found = {name: paired(model, BATCH) for name, model in models.items()}
    dense, told = found[store.DENSE], dict[str, Figures]()
    for name, losses in found.items():
        gain = estimate(dense - losses)
        told[name] = {
            "loss": float(losses.mean()), "gain": gain.mean, "error": gain.error,
            "by_time": paired.by_time(dense - losses),
        }  # fmt: skip
    return told


def _drawn(
    divided: Divided, judge: Judge, name: str, model: Model, scale: float, folder: Path,
    settings: dict[str, Any],
) -> Figures:  # fmt: skip
    """Samples of all classes in turn, what they are like, and some of them as a picture."""
    classes, count = divided.manifest.classes, settings["samples"]
    labels = torch.arange(count) % classes
    shape = (count, *divided.latent.shape)
    drawn = sample(
        model, shape, settings["steps"], condition=labels, guidance=scale, batch=BATCH,
        seed=divided.settings.seed,
    )  # fmt: skip
    x = divided.latent.decode(drawn.x)
    first = (
        x[: settings["rows"] * classes].unflatten(0, (-1, classes)).transpose(0, 1).flatten(0, 1)
    )
    picture = folder / "pictures" / f"{name.partition(':')[0]}-{scale:g}.png"
    picture.parent.mkdir(exist_ok=True)
    pictures.save(first, picture, settings["rows"])
    distance, right = judge(x, labels)
    active = drawn.metadata.get("active", 1.0)
    return {"model": name, "guidance": scale, "frechet": distance, "right": right, "active": active}


class Judge:
    """A small classifier of the data: distances of its features, and whether it sees the class."""

    def __init__(self, data: Data, samples: int, epochs: int, seed: int) -> None:
        assert data.test is not None
        assert data.test.labels is not None
        self.network = _classifier(data, epochs, seed)
        test, few = data.test.rows(slice(None)), torch.arange(min(samples, len(data)))
        self.reference = self._features(test)
        self.accuracy = self(test, data.test.labels)[1]
        self.floor = frechet(self._features(data.rows(few)), self.reference)

    def __call__(self, x: Tensor, labels: Tensor) -> tuple[float, float]:
        """The Fréchet distance of x [n, 1, H, W] to the tests, and the share of its labels that the
        classifier sees in it."""
        features = self._features(x)
        right = (self.network[-1](features).argmax(1) == labels).double().mean()
        return frechet(features.detach(), self.reference), float(right)

    @torch.no_grad()
    def _features(self, x: Tensor) -> Tensor:
        return torch.cat([self.network[:-1](part) for part in x.split(BATCH)])


def _classifier(data: Data, epochs: int, seed: int) -> nn.Sequential:
    """Its last layer but one gives 64 features."""
    assert data.labels is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(data)
        optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(data)).split(LEARNT):
                optimizer.zero_grad()
                cross_entropy(network(data.rows(rows)), data.labels[rows]).backward()
                optimizer.step()
    return network.eval()


def _network(data: Data) -> nn.Sequential:
    _, height, width = data.shape
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * math.ceil(height / 4) * math.ceil(width / 4), 64), nn.ReLU(),
        nn.Linear(64, data.classes),
    )  # fmt: skip


def _costs(records: dict[str, store.Record], chosen: Settings) -> Figures:
    """FLOPs and seconds of training, of the dense model and of all that the ensemble took."""
    sizes = {store.ROUTER: chosen.router.batch_size}
    sizes[store.DENSE] = chosen.partition.experts * chosen.expert.batch_size
    flops, seconds = {"dense": 0.0, "ensemble": 0.0}, {"dense": 0.0, "ensemble": 0.0}
    for name, record in records.items():
        whose = "dense" if name == store.DENSE else "ensemble"
        rows = sizes.get(name, chosen.expert.batch_size) * record.steps
        flops[whose] += FLOPS * float(record.multiply_adds or 0) * rows
        seconds[whose] += record.seconds or 0.0
    dense_steps = records[store.DENSE].steps
    ratio = flops["dense"] / flops["ensemble"]
    return {"flops": flops, "ratio": ratio, "seconds": seconds, "dense_steps": dense_steps}


def _trained(table: dict[str, Any], progress: Progress) -> Path:
    """The folder with all that is trained in it."""
    chosen: Settings = toml.convert(table, reading.Settings)
    told = json.dumps(table, sort_keys=True).encode()
    folder = Path("runs") / f"ddm-images-{hashlib.blake2b(told, digest_size=4).hexdigest()}"
    if not (folder / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        partition(chosen, folder, lambda doing: progress(doing, 0.0))
    options = work.Options(steps=_dense_steps(reopen(folder)))
    experts = [store.expert(k) for k in range(chosen.partition.experts)]
    names = [store.ROUTER, *experts, store.DENSE]
    for name, start in zip(names, _starts(len(experts)), strict=True):
        work.train(folder, name, _telling(progress, name, start), options=options)
    return folder


def _starts(experts: int) -> list[float]:
    """The share of the whole that is done when each training begins."""
    return [0.0, *(0.05 + 0.35 * k / experts for k in range(experts)), 0.4]


def _telling(progress: Progress, name: str, start: float) -> Any:
    return lambda training: progress(f"{name}, step {training.steps}", start)


def _dense_steps(divided: Divided) -> int:
    """As many as experts and router cost together."""
    chosen = divided.settings
    expert = _cost(divided, chosen.expert) * chosen.partition.experts
    router = _cost(divided, chosen.router, chosen.partition.experts)
    each = expert / chosen.expert.steps
    return math.ceil((expert + router) / each)


def _cost(divided: Divided, table: TrainingTable, outputs: int | None = None) -> int:
    """Multiply-adds of all forward passes of one training."""
    shape, classes = divided.latent.shape, divided.manifest.classes
    network = networks.build(table.network, shape, classes, outputs, **table.options)
    each = multiply_adds(network, shape, torch.zeros(1, dtype=torch.int64))
    return each * table.batch_size * table.steps


def plot(figures: Figures, folder: Path) -> None:
    for picture in sorted((Path(figures["folder"]) / "pictures").glob("*.png")):
        (folder / picture.name).write_bytes(picture.read_bytes())
    figure, (left, right) = style.panels(2)
    for name, each in figures["losses"].items():
        if name != store.DENSE:
            times = [(i + 0.5) / len(each["by_time"]) for i in range(len(each["by_time"]))]
            style.line(left, times, each["by_time"], name)
    style.guide(left, [0, 1], [0, 0])
    style.finish(left, x="t", y="loss of dense less that of the ensemble")
    _draw_distances(right, figures["table"], figures["floor"])
    style.save(figure, folder / "quality.svg")


def _draw_distances(axes: Any, table: list[Figures], floor: float) -> None:
    """Fréchet distance against guidance, a line to each model."""
    for name in dict.fromkeys(row["model"] for row in table):
        own = [row for row in table if row["model"] == name]
        distances = [row["Fréchet distance"] for row in own]
        style.line(axes, [row["guidance"] for row in own], distances, name)
    style.guide(axes, [1, 2], [floor, floor], "training images")
    style.finish(axes, x="guidance", y="Fréchet distance", ticks=[1, 2])
