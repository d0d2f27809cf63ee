"""Linear and ridge regression, whose every quantity has a closed form.

    f_i(x) = (1/m)‖A_i x − b_i‖² + (l2/2)‖x‖²
           = f_i(c_i) + ½ (x − c_i)ᵀ H_i (x − c_i),    H_i = (2/m) A_iᵀA_i + l2 I
    ∇f_i(x) = H_i x − H_i c_i,    ∇f_i*(y) = c_i + H_i⁻¹ y
    μ = min_i λ_min(H_i),         L = max_i λ_max(H_i)

The data is that of the DADAO experiments (Nabli & Oyallon, ICML 2023, section 5), which is what
sklearn.datasets.make_regression draws: a_ij ~ N(0, I), one w ~ U(0, 100)ᵈ for all, and

    b_ij = s_i (a_ij·w + noise·N(0, 1)),    s_i ~ U(smallest, largest)

so that workers differ in what they would fit alone: c_i ≈ s_i w.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from decent.errors import TaskError
from decent.learning.convex import (
    DTYPE,
    Convex,
    ConvexTask,
    Local,
    check_finite,
    check_not_negative,
    local_data,
)
from decent.schedule.streams import stream

WEIGHT = 100.0  # w is drawn from U(0, WEIGHT), as make_regression does
ASYMMETRY = 1e-10  # of a Hessian, relative: what rounding may leave


class Quadratic(Convex):
    """f_i(x) = floor_i + ½ (x − c_i)ᵀ H_i (x − c_i), for `hessians` H [n, d, d], `centres` c [n, d]
    and `floors` [n], 0 if not given."""

    def __init__(
        self,
        hessians: ArrayLike | Tensor,
        centres: ArrayLike | Tensor,
        floors: ArrayLike | Tensor = 0.0,
    ) -> None:
        H, c, floor = (torch.as_tensor(x, dtype=DTYPE) for x in (hessians, centres, floors))
        _check(H, c)
        self.n, self.size = c.shape
        self.mu, self.L = _curvature(H)
        self._hessians, self._linear = H, H @ c[:, :, None]
        self._inverses = torch.cholesky_inverse(torch.linalg.cholesky(H))
        self._centres, self._mean = c[:, :, None], H.mean(0)
        self.optimum = torch.linalg.solve(self._mean, self._linear.mean(0)[:, 0])
        apart = (self.optimum - c)[:, :, None]
        self.optimal_value = float((floor + (apart.mT @ H @ apart)[:, 0, 0] / 2).mean())

    def gradients(self, points: Tensor, workers: Tensor, drawn: Tensor) -> tuple[Tensor, None]:
        H, linear = self._hessians.index_select(0, workers), self._linear.index_select(0, workers)
        return torch.baddbmm(linear, H, points.unsqueeze(2), beta=-1).squeeze(2), None

    def dual_gradients(self, y: Tensor, workers: Tensor) -> Tensor:
        inverses = self._inverses.index_select(0, workers)
        centres = self._centres.index_select(0, workers)
        return torch.baddbmm(centres, inverses, y.unsqueeze(2)).squeeze(2)

    def gaps(self, points: Tensor) -> Tensor:
        """Without the loss of digits that F(x) − F(x*) would bring."""
        apart = points - self.optimum
        return (apart @ self._mean * apart).sum(1) / 2

    def values(self, points: Tensor) -> Tensor:
        return self.optimal_value + self.gaps(points)


class RidgeObjective(Quadratic):
    """Ridge regression on given data: `designs` A [n, m, d], `targets` b [n, m]."""

    def __init__(
        self, designs: ArrayLike | Tensor, targets: ArrayLike | Tensor, l2: float = 0.0
    ) -> None:
        check_not_negative("ridge", l2=l2)
        A, b = local_data(designs, targets)
        m, d = A.shape[1:]
        H = 2 / m * A.mT @ A + l2 * torch.eye(d, dtype=DTYPE)
        _curvature(H)
        centres = torch.linalg.solve(H, 2 / m * (A.mT @ b[:, :, None])[:, :, 0])
        misfit = ((A @ centres[:, :, None])[:, :, 0] - b).square().mean(1)
        super().__init__(H, centres, misfit + l2 / 2 * centres.square().sum(1))


class Ridge(ConvexTask):
    """Linear or ridge regression, convex, its optimum known; drawn, nothing to fetch."""

    name: ClassVar[str] = "ridge"

    def __init__(
        self,
        samples: int = 100,
        features: int = 5,
        noise: float = 10.0,
        smallest: float = 0.01,
        largest: float = 5.0,
        l2: float = 0.0,
        start: str = "normal",
        seed: int = 0,
    ) -> None:
        super().__init__(samples, features, l2, start, seed)
        check_not_negative(self.name, noise=noise, smallest=smallest, largest=largest, l2=l2)
        if smallest > largest:
            raise TaskError(f"option smallest = {smallest} above largest = {largest}", "at most it")
        self.noise, self.smallest, self.largest = noise, smallest, largest

    def local(self, worker: int) -> Local:
        weights = stream(self.seed, "ridge", "weights").uniform(0, WEIGHT, self.features)
        rng = stream(self.seed, "ridge", worker)
        design = rng.standard_normal((self.samples, self.features))
        scale = rng.uniform(self.smallest, self.largest)
        return design, scale * (design @ weights + self.noise * rng.standard_normal(self.samples))

    def misfit(self, predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).square().mean()

    def problem(self, designs: NDArray[np.float64], targets: NDArray[np.float64]) -> RidgeObjective:
        return RidgeObjective(designs, targets, self.l2)


def _check(H: Tensor, c: Tensor) -> None:
    if c.ndim != 2 or not c.numel() or H.shape != (*c.shape, c.shape[1]):
        given = f"Hessians of shape {tuple(H.shape)} with centres of shape {tuple(c.shape)}"
        raise TaskError(given, "[workers, d, d] with [workers, d], none of them empty")
    check_finite("the Hessian", H)
    check_finite("the centre", c)
    skew = (H - H.mT).abs().amax((1, 2)) > ASYMMETRY * H.abs().amax((1, 2))
    if bool(skew.any()):
        raise TaskError(f"the Hessian of worker {int(skew.nonzero()[0])}", "a symmetric matrix")


def _curvature(H: Tensor) -> tuple[float, float]:
    """μ and L of functions with Hessians `H` [n, d, d]; refused where one is not strongly convex"""
    values = torch.linalg.eigvalsh(H)
    low, L = values[:, 0], float(values.max())
    worker = int(low.argmin())
    mu = float(low[worker])
    if not mu > L * H.shape[1] * torch.finfo(DTYPE).eps:
        raise TaskError(
            f"f of worker {worker} is not strongly convex, its least curvature is {mu:.3g}",
            "a value above 0",
            "give more samples than features, or l2 above 0",
        )
    return mu, L
