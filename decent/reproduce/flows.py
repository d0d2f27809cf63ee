"""What experiments on decentralized diffusion share: trained ensembles, their costs, their quality.

    training FLOPs    6 · multiply-adds of a forward · batch · steps: forward 2, backward 4; a
                      router is charged to its ensemble
    loss              the paired flow-matching loss on the data's tests (`metrics.PairedLoss`)
    Fréchet distance  of features of a small classifier, samples against the data's tests as the
                      latent shows them; the floor is that of as many training images

One dense model is an ensemble of one expert. What is trained is kept in runs/ddm/, by settings and
by the code of decent.experts: experiments share it, and one that was interrupted goes on there.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from decent import experts as package
from decent.errors import RuntimeFault
from decent.experts import isolated, manifest, sources, store
from decent.experts.ensemble import Ensemble
from decent.experts.latent import Latent
from decent.experts.metrics import PairedLoss, frechet, occupancy
from decent.experts.partition import partition
from decent.experts.prediction import Model
from decent.experts.sampling import sample
from decent.experts.settings import Settings
from decent.experts.sources import Data
from decent.experts.store import Pipeline
from decent.toml import convert

KEPT = Path("runs/ddm")
BATCH = 2000  # samples drawn together
LEARNT = 128  # images in a batch of the classifier
Tell = Callable[[float], object]
"""told which share of a training, 0 to 1, is done"""


def trained(given: dict[str, Any], tell: Tell = lambda share: None) -> Pipeline:
    """The ensemble of settings like those of `decent experts`, trained unless it has been. One of
    random shards, or of one expert, has no router: all that could be known is π."""
    settings: Settings = convert(given, Settings)
    folder = KEPT / xxhash.xxh3_64_hexdigest((settings.to_toml() + _code()).encode())
    if not (folder / manifest.FILE).exists():
        partition(settings, folder)
    count = settings.partition.experts
    names = [store.expert(k) for k in range(count)]
    if count > 1 and settings.partition.method != "random":
        names.insert(0, store.ROUTER)

    def look(statuses: list[dict[str, Any]]) -> None:
        shares = [each["step"] / each.get("steps", 1e9) for each in statuses]
        tell(sum(shares) / max(len(shares), 1))

    for status in isolated.train(folder, names, len(os.sched_getaffinity(0)), on_status=look):
        if status["state"] != "done":
            raise RuntimeFault(f"{status['name']} was not trained: {status.get('what')}")
    return store.open_pipeline(folder)


def _code() -> str:
    """A digest of what trains, so that what an older decent trained is not taken."""
    state = xxhash.xxh3_64()
    for path in sorted(Path(package.__path__[0]).rglob("*.py")):
        state.update(path.read_bytes())
    return state.hexdigest()


def training_flops(pipeline: Pipeline) -> float:
    """Of all experts and the router."""
    tables = {store.ROUTER: pipeline.settings.router}
    total = 0.0
    for name, record in pipeline.records.items():
        batch = tables.get(name, pipeline.settings.expert).batch_size
        total += 6.0 * (record.multiply_adds or 0) * batch * record.steps
    return total


def ensemble(pipeline: Pipeline, strategy: str) -> Ensemble:
    """Its experts under `strategy`; of random shards weighted by π, the exact posterior."""
    router: Model = pipeline.router or Constant(pipeline.pi)
    return Ensemble(pipeline.experts, router, pipeline.pi, strategy)


class Constant:
    """A router to which all states are alike: logits log `shares` [K]."""

    def __init__(self, shares: tuple[float, ...]) -> None:
        self.logits = torch.tensor(shares, dtype=torch.float64).log().float()

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return self.logits.expand(len(x), -1)


@dataclass(frozen=True)
class Drawn:
    """What a model's samples are like, and what one evaluation of it took."""

    frechet: float
    active: float
    """experts per row and evaluation"""
    occupied: float | None
    """total variation of the samples' clusters from π, where clusters were asked for"""


class Judge:
    """The data's tests, a classifier that knows its classes, and samples to compare."""

    def __init__(
        self, encoder: Latent, *, samples: int, epochs: int, seed: int = 0, data: Data | None = None
    ) -> None:
        self.encoder, self.samples, self.seed = encoder, samples, seed
        self.data = data or sources.load("fashion-mnist")
        assert self.data.test is not None
        test = self.data.test.rows(slice(None))
        self.latents = encoder.encode(test)
        self.paired = PairedLoss(self.latents, seed=seed)
        self.classifier = classifier(self.data, epochs, seed)
        self.accuracy = _accuracy(self.classifier, self.data.test)
        self.reference = self.features(self.latents)
        self.floor = frechet(self.features(encoder.encode(self._some())), self.reference)

    def _some(self) -> Tensor:
        rng = np.random.default_rng(self.seed)
        return self.data.rows(np.sort(rng.permutation(len(self.data))[: self.samples]))

    @torch.no_grad()
    def features(self, z: Tensor) -> Tensor:
        """[n, 64] of latents z [n, *Z]."""
        parts = torch.split(z, BATCH)
        return torch.cat([self.classifier[:-1](self.encoder.decode(part)) for part in parts])

    def draw(
        self,
        model: Model,
        steps: int = 40,
        method: str = "euler",
        clusters: manifest.Manifest | None = None,
    ) -> Drawn:
        """Samples of `model` against the tests; `clusters` says which of them there are."""
        shape = (self.samples, *self.encoder.shape)
        drawn = sample(model, shape, steps, method, seed=self.seed, batch=BATCH)
        occupied = None
        if clusters is not None:
            found = torch.from_numpy(clusters.assign(drawn.x.numpy()))
            occupied = occupancy(found, clusters.pi)
        distance = frechet(self.features(drawn.x), self.reference)
        return Drawn(distance, drawn.metadata.get("active", 1.0), occupied)


def classifier(data: Data, epochs: int, seed: int) -> nn.Sequential:
    """A small convolutional network for images [1, 28, 28], trained on `data`; its last layer but
    one gives 64 features."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(1, 24, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(1568, 64), nn.ReLU(), nn.Linear(64, 10),
        )  # fmt: skip
        batches = len(data) // LEARNT
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
        for _ in range(epochs):
            for rows in torch.randperm(len(data))[: batches * LEARNT].view(-1, LEARNT):
                _learn(model, data, rows, optimizer)
                schedule.step()
    return model.eval()


def _learn(model: nn.Module, data: Data, rows: Tensor, optimizer: torch.optim.Optimizer) -> None:
    assert data.labels is not None
    optimizer.zero_grad()
    cross_entropy(model(data.rows(rows)), data.labels[rows]).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


@torch.no_grad()
def _accuracy(model: nn.Module, data: Data) -> float:
    assert data.labels is not None
    found = torch.cat([model(part).argmax(1) for part in data.chunks()])
    return float((found == data.labels).double().mean())
