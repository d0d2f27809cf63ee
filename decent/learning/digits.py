"""Handwritten digits: scikit-learn's 1797 images of 8×8, seconds on one core, nothing to fetch.

Inputs are 64 values in [−1, 1] (the data's 0 to 16, divided by 8, less 1). A seeded permutation
leaves 397 images for the test; the 1400 others are split class by class with Dir(α), so shares
differ in size, or evenly and at random (`sharding = "uniform"`), or every worker has them all
("all", in the same memory). The model is 64 – hidden – 10 with ReLU. Alpaydın & Kaynak, UCI
repository, 1998.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import nn

from decent.errors import TaskError
from decent.learning.classification import Classification, Labelled, Share, check_positive
from decent.learning.shards import dirichlet, uniform
from decent.schedule.streams import stream

TRAIN = 1400
SHARDINGS = ("dirichlet", "uniform", "all")


class Digits(Classification):
    """Handwritten digits 8×8, a small MLP; comes with scikit-learn."""

    name: ClassVar[str] = "digits"

    def __init__(
        self,
        alpha: float = 0.1,
        hidden: int = 128,
        lr: float = 0.1,
        seed: int = 0,
        sharding: str = "dirichlet",
    ) -> None:
        check_positive(self.name, alpha=alpha, hidden=hidden, lr=lr)
        if sharding not in SHARDINGS:
            raise TaskError(f"option sharding = {sharding!r}", ", ".join(map(repr, SHARDINGS)))
        self.alpha, self.hidden, self.lr, self.seed = alpha, hidden, lr, seed
        self.sharding = sharding
        X, y = _images()
        order = torch.from_numpy(stream(seed, "digits").permutation(len(y)))
        self.train = Labelled(X[order[:TRAIN]], y[order[:TRAIN]])
        self.test = Labelled(X[order[TRAIN:]], y[order[TRAIN:]])

    @staticmethod
    def status() -> str:
        return "ready"

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 10))

    def shards(self, workers: int) -> Sequence[Share]:
        if self.sharding == "all":
            return [slice(None)] * workers
        if self.sharding == "uniform":
            return uniform(TRAIN, workers, self.seed)
        return dirichlet(self.train.y.numpy(), workers, self.alpha, self.seed)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=self.lr)


@lru_cache(maxsize=1)
def _images() -> Labelled:
    bunch = load_digits()
    X = torch.from_numpy(bunch.data / 8 - 1).float()  # pixels 0 … 16 to −1 … 1
    return Labelled(X, torch.from_numpy(bunch.target).long())
