"""The router: p(k | x_t, t, c), learned as a classifier of noised samples.

    L = E[−log softmax(r(x_t, t, c))_k],   (x₀, k, c) of the whole data, t uniform

Its minimiser is the posterior that weighs the experts (McAllister et al., arXiv 2501.05450, Alg.
1); it is conditioned exactly as they are. Batches with as many samples of each cluster would teach
it p_k/Σ_j p_j; adding log π_k to its logits makes it the posterior again (`PriorCorrected`). At
t = 1 the state says nothing, so the mean of its softmax there must be π: `prior_error` looks.

Where data cannot be pooled, it is learned from what the experts generate in proportion π, and each
for the labels c of its cluster in proportion p(c | k), which the manifest counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from decent.experts import networks
from decent.experts.devices import at, device_of
from decent.experts.flow import draw_times, dropped
from decent.experts.path import LINEAR, noised
from decent.experts.prediction import Model
from decent.experts.sampling import sample
from decent.experts.settings import RouterTable
from decent.schedule import stream

TOLERANCE = 0.05
"""total variation between π and the mean softmax at t = 1, above which a router is doubtful"""


@dataclass(frozen=True)
class Routing:
    """What a router descends on: samples x [n, *Z], their clusters [n], and their labels [n] where
    it is given them. All is drawn from torch's global generator."""

    x: Tensor
    clusters: Tensor
    labels: Tensor | None
    table: RouterTable
    members: list[Tensor] = field(init=False)
    """rows of each cluster"""

    def __post_init__(self) -> None:
        count = int(self.clusters.max()) + 1
        rows = [(self.clusters == k).nonzero()[:, 0] for k in range(count)]
        object.__setattr__(self, "members", rows)

    def __call__(self, module: nn.Module) -> Tensor:
        rows = self._rows()
        x, labels = self.x[rows], None if self.labels is None else self.labels[rows]
        t = draw_times(len(x), self.table.times)
        condition = dropped(labels, self.table.drop_condition)
        x_t = noised(LINEAR, x, torch.randn_like(x), t)
        logits = module(*at(device_of(module), x_t, t, condition))
        return cross_entropy(logits, self.clusters[rows].to(logits.device))

    def _rows(self) -> Tensor:
        size = self.table.batch_size
        if not self.table.balanced:
            return torch.randint(len(self.x), (size,))
        sizes = torch.tensor([len(rows) for rows in self.members])
        clusters = torch.randint(len(sizes), (size,))
        places = (torch.rand(size) * sizes[clusters]).long()
        return torch.stack([self.members[k][i] for k, i in zip(clusters, places, strict=True)])


class PriorCorrected(nn.Module):
    """A router of balanced batches, log π added to its logits. Itself a network by name, so that
    it is stored and built again as any other."""

    log_prior: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        outputs: int = 1,
        network: str = "mlp",
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = networks.build(network, shape, classes, outputs, **(options or {}))
        self.register_buffer("log_prior", torch.zeros(outputs))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        logits: Tensor = self.network(x, t, condition)
        return logits + self.log_prior

    @classmethod
    def of(cls, network: nn.Module, pi: Sequence[float]) -> PriorCorrected:
        """Around a router that is trained."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made.network = network
        made.register_buffer("log_prior", torch.tensor(pi, dtype=torch.float64).log().float())
        return made


def generated(
    experts: Sequence[Model],
    pi: Sequence[float],
    count: int,
    shape: tuple[int, ...],
    seed: int,
    label_counts: Sequence[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """About `count` samples [n, *shape] that `experts` draw in proportion `pi`, at least one each,
    who drew them [n], and for which labels [n]: in proportion `label_counts` [K, classes].
    On the CPU."""
    sizes = [max(1, round(share * count)) for share in pi]
    drawn, labels = [], []
    for k, (expert, size) in enumerate(zip(experts, sizes, strict=True)):
        rng, own = stream(seed, "router", k), None
        start = int(rng.integers(2**31))
        if label_counts is not None:
            own = _labels(label_counts[k], size, rng)
            labels.append(own)
        drawn.append(sample(expert, (size, *shape), condition=own, seed=start).x.cpu())
    clusters = torch.repeat_interleave(torch.tensor(sizes))
    return torch.cat(drawn), clusters, torch.cat(labels) if labels else None


def _labels(counts: Sequence[int], size: int, rng: np.random.Generator) -> Tensor:
    """[size] labels, drawn in proportion `counts`."""
    share = np.array(counts) / sum(counts)
    return torch.from_numpy(rng.choice(len(share), size, p=share))


@torch.no_grad()
def prior_error(router: Model, pi: Sequence[float], shape: tuple[int, ...],
                labels: Tensor | None = None, count: int = 4096) -> float:  # fmt: skip
    """Total variation, 0 to 1, between `pi` [K] and the mean softmax of `router` at t = 1, over
    the data's `labels` where it is conditioned on them."""
    rng = stream(0, "router", "prior")
    noise = torch.from_numpy(rng.standard_normal((count, *shape), dtype=np.float32))
    condition = (
        None if labels is None else labels[torch.from_numpy(rng.integers(len(labels), size=count))]
    )
    logits = router(*at(device_of(router), noise, torch.ones(count), condition))
    mean = logits.cpu().double().softmax(1).mean(0)
    return 0.5 * float((mean - torch.tensor(pi, dtype=torch.float64)).abs().sum())


@dataclass(frozen=True)
class Bin:
    """A router at times `low` to `high`."""

    low: float
    high: float
    cross_entropy: float
    accuracy: float
    entropy: float
    """of its softmax, nats; as large as the cross-entropy where it is calibrated"""


@torch.no_grad()
def calibration(
    router: Model, x: Tensor, clusters: Tensor, labels: Tensor | None = None, bins: int = 10
) -> list[Bin]:
    """How right and how sure `router` is in equal parts of [0, 1], on samples x [n, *Z] that it
    was not trained on; the same noise each time."""
    table = []
    for i in range(bins):
        rng = stream(0, "router", "calibration", i)
        t = torch.from_numpy(((i + rng.random(len(x))) / bins).astype(np.float32))
        noise = torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32))
        logits = router(*at(device_of(router), noised(LINEAR, x, noise, t), t, labels))
        logs = logits.cpu().double().log_softmax(1)
        entropy = -(logs.exp() * logs.clamp(min=-1e300)).sum(1).mean()
        right = (logs.argmax(1) == clusters).double().mean()
        loss = cross_entropy(logs, clusters)
        table.append(Bin(i / bins, (i + 1) / bins, *(float(v) for v in (loss, right, entropy))))
    return table


def nats(pi: Sequence[float]) -> float:
    """The entropy of π: the cross-entropy of a router that knows nothing but π."""
    return -sum(share * math.log(share) for share in pi if share > 0)
