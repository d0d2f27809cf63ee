"""Logistic regression with an ℓ2 penalty: convex, not quadratic, solved to rounding by Newton.

    f_i(x) = (1/m) Σ_j log(1 + exp(−z_ij·x)) + (l2/2)‖x‖²,    z_ij = b_ij a_ij,  b_ij = ±1
    ∇f_i(x) = l2 x − (1/m) Σ_j σ(−z_ij·x) z_ij
    ∇²f_i(x) = l2 I + (1/m) Σ_j σ(z_ij·x) σ(−z_ij·x) z_ij z_ijᵀ
    μ = l2,    L = l2 + max_i λ_max(A_iᵀA_i)/(4m)

The data is two clouds per worker, much as sklearn.datasets.make_classification draws them, around
opposite points ±v_i: labels ±1 with equal odds, a_ij = b_ij v_i + N(0, I), and

    v_i = v + spread·N(0, I),    v a random corner of {−1, 1}ᵈ, the same for all

l2 = 1 is that of the published DADAO code (Nabli & Oyallon, ICML 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from decent.errors import TaskError
from decent.learning.classification import check_positive
from decent.learning.convex import DTYPE, Convex, ConvexTask, Local, check_not_negative, local_data
from decent.schedule.streams import stream

CHUNK = 1 << 22  # values of intermediate tensors at once: 32 MiB
ROUNDS = 100  # of Newton's method: ten or so are needed

Slope = Callable[[Tensor], tuple[Tensor, Tensor]]


class LogisticObjective(Convex):
    """Logistic regression on given data: `designs` A [n, m, d], `labels` b [n, m] of ±1.

    `values` sees all samples of all workers for each point: measures cost O(n² m d).
    """

    def __init__(
        self, designs: ArrayLike | Tensor, labels: ArrayLike | Tensor, l2: float = 1.0
    ) -> None:
        check_positive("logistic", l2=l2)
        check_not_negative("logistic", l2=l2)
        A, b = local_data(designs, labels)
        _check_labels(b)
        self.n, self._samples, self.size = A.shape
        self._signed = A * b[:, :, None]
        steepest = float(torch.linalg.eigvalsh(A.mT @ A).max()) / (4 * self._samples)
        self._l2, self.mu, self.L = l2, l2, l2 + steepest
        everyone = self._signed.reshape(1, -1, self.size)
        start = torch.zeros(1, self.size, dtype=DTYPE)
        self.optimum = newton(lambda x: _slope(everyone, x, l2), start)[0]
        self.optimal_value = float(self.values(self.optimum[None]))

    def gradients(self, points: Tensor, workers: Tensor, drawn: Tensor) -> tuple[Tensor, None]:
        parts = self._parts(points, workers)
        return torch.cat([_gradient(self._signed[i], x, self._l2) for x, i in parts]), None

    def dual_gradients(self, y: Tensor, workers: Tensor) -> Tensor:
        parts = self._parts(y, workers)
        return torch.cat([self._inverse(part, self._signed[i]) for part, i in parts])

    def values(self, points: Tensor) -> Tensor:
        everyone = self._signed.reshape(-1, self.size).T
        parts = torch.split(points, self._rows(self.n * self._samples))
        losses = torch.cat([-logsigmoid(x @ everyone).mean(1) for x in parts])
        return losses + self._l2 / 2 * points.square().sum(1)

    def _inverse(self, y: Tensor, signed: Tensor) -> Tensor:
        """x [k, d] with the gradients `y` [k, d] on `signed` [k, m, d]."""

        def slope(x: Tensor) -> tuple[Tensor, Tensor]:
            gradient, hessian = _slope(signed, x, self._l2)
            return gradient - y, hessian

        return newton(slope, self.optimum.expand_as(y))

    def _parts(self, points: Tensor, workers: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        rows = self._rows(self._samples)
        return zip(torch.split(points, rows), torch.split(workers, rows), strict=True)

    def _rows(self, samples: int) -> int:
        """How many points to take at once, each with `samples` of its own."""
        return max(1, CHUNK // (samples * self.size))


class Logistic(ConvexTask):
    """Logistic regression with an ℓ2 penalty, convex; drawn, nothing to fetch."""

    name: ClassVar[str] = "logistic"

    def __init__(
        self,
        samples: int = 100,
        features: int = 5,
        spread: float = 1.0,
        l2: float = 1.0,
        start: str = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(samples, features, l2, start, seed)
        check_positive(self.name, l2=l2)
        check_not_negative(self.name, l2=l2, spread=spread)
        self.spread = spread

    def local(self, worker: int) -> Local:
        corner = stream(self.seed, "logistic", "corner").choice([-1.0, 1.0], self.features)
        rng = stream(self.seed, "logistic", worker)
        centre = corner + self.spread * rng.standard_normal(self.features)
        labels = rng.choice([-1.0, 1.0], self.samples)
        noise = rng.standard_normal((self.samples, self.features))
        return labels[:, None] * centre + noise, labels

    def misfit(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return -logsigmoid(targets * predictions).mean()

    def problem(
        self, designs: NDArray[np.float64], targets: NDArray[np.float64]
    ) -> LogisticObjective:
        return LogisticObjective(designs, targets, self.l2)


def newton(slope: Slope, start: Tensor) -> Tensor:
    """Where g = 0, row by row, for `slope(x [k, d])` = g [k, d] and its Jacobian H [k, d, d]: steps
    H⁻¹ g, halved where |g| would not fall, until they are lost in the rounding of x."""
    x, share = start, torch.ones_like(start[:, :1])
    g, H = slope(x)
    eps = torch.finfo(x.dtype).eps
    for _ in range(ROUNDS):
        step = share * torch.linalg.solve(H, g)
        if bool((step.norm(dim=1) <= eps * x.norm(dim=1)).all()):
            break
        there = x - step
        g_there, H_there = slope(there)
        better = g_there.norm(dim=1, keepdim=True) < g.norm(dim=1, keepdim=True)
        x, g = torch.where(better, there, x), torch.where(better, g_there, g)
        H = torch.where(better[:, :, None], H_there, H)
        share = torch.where(better, torch.ones_like(share), share / 2)
    return x


def _gradient(signed: Tensor, x: Tensor, l2: float) -> Tensor:
    """[k, d], of rows `x` [k, d] on `signed` samples [k, m, d]."""
    pull = torch.sigmoid(-(signed @ x[:, :, None]))
    return l2 * x - (signed.mT @ pull)[:, :, 0] / signed.shape[1]


def _slope(signed: Tensor, x: Tensor, l2: float) -> tuple[Tensor, Tensor]:
    """Gradients [k, d] and Hessians [k, d, d]."""
    odds = torch.sigmoid(signed @ x[:, :, None])
    hessian = signed.mT @ (odds * (1 - odds) * signed) / signed.shape[1]
    hessian.diagonal(dim1=1, dim2=2).add_(l2)
    return _gradient(signed, x, l2), hessian


def _check_labels(b: Tensor) -> None:
    odd = (b.abs() != 1).nonzero()
    if len(odd):
        worker, row = odd[0].tolist()
        raise TaskError(f"label {float(b[worker, row])} of worker {worker}, row {row}", "-1 or 1")
