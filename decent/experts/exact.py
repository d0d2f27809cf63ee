"""Data whose flows are known in closed form: to test ensembles, and samplers, against.

The data are a mixture of J components with weights w_j, each in a cluster and, if there are
labels, in a class. With p_j the density of x_t given component j, r_j ∝ w_j p_j(x_t), and
R_k = Σ_{j∈k} r_j the exact router,

    u_t(x)   = α' E[x₀|x] + σ' E[ε|x],    E[·|x] = Σ_j r_j E[·|x, j]
    u_t^k(x) = the same over the components of cluster k, with r_j / R_k

A Gaussian component N(m, Q Λ Qᵀ) has, with v = α²Λ + σ² and z = Qᵀ(x − α m),

    p_j = N(z; 0, v)    E[x₀|x, j] = m + α Q (Λ z / v)    E[ε|x, j] = σ Q (z / v)

and a single point (Λ = 0) E[x₀|x, j] = m. A second way to u, for tests, is the score's:
u = (α'/α) x + (α'σ²/α − σ'σ) ∇log p_t(x). x [N, D], t [N], everything in float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from decent.errors import ConfigError
from decent.experts import path as paths
from decent.experts.path import LINEAR, Path, spread
from decent.experts.prediction import Model
from decent.experts.strategy import LEAST

SMALL = 1e-12  # least σ of a point's noise: a field may be asked at t = 0


class Exact(ABC):
    """A mixture with its clusters [J] (0 … K − 1), weights [J] and class labels [J] or none."""

    def __init__(
        self, weights: Tensor, clusters: Tensor, labels: Tensor | None, path: Path
    ) -> None:
        if not len(weights) == len(clusters) == (len(weights) if labels is None else len(labels)):
            raise ConfigError("components", "a weight, a cluster and a label for each")
        self.log_weights = (weights / weights.sum()).double().log()
        self.clusters, self.labels, self.path = clusters.long(), labels, path
        self.count = int(clusters.max()) + 1

    @abstractmethod
    def log_densities(self, x: Tensor, t: Tensor) -> Tensor:
        """log p_j(x_t) [N, J]."""

    @abstractmethod
    def ends(self, x: Tensor, t: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        """Σ_j shares_j E[x₀|x, j] and Σ_j shares_j E[ε|x, j], shares [N, J]."""

    @property
    def pi(self) -> list[float]:
        """The shares of the clusters."""
        weights = self.log_weights.exp()
        return torch.zeros(self.count).double().index_add(0, self.clusters, weights).tolist()

    @property
    def experts(self) -> list[Model]:
        """Each cluster's velocity."""
        return [self.expert(k) for k in range(self.count)]

    def expert(self, k: int, kind: str = "velocity") -> Model:
        """What a perfect expert of cluster `k` predicts: "velocity", "noise", "data" or "v"."""
        return partial(self.predict, kind, cluster=k)

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The flow of all the data [N, D]."""
        return self.predict("velocity", x, t, condition)

    def predict(
        self,
        kind: str,
        x: Tensor,
        t: Tensor,
        condition: Tensor | None = None,
        cluster: int | None = None,
    ) -> Tensor:
        """[N, D], of one cluster or of all the data."""
        logits = self._joint(x, t, condition)
        if cluster is not None:
            logits = logits.masked_fill(self.clusters != cluster, -torch.inf)
        x0, noise = self.ends(x, t, torch.softmax(logits, -1))
        if kind == "v":
            alpha, sigma = spread(self.path.alpha(t), x), spread(self.path.sigma(t), x)
            return alpha * noise - sigma * x0
        known = {"data": x0, "noise": noise}
        return known[kind] if kind in known else paths.velocity(self.path, x0, noise, t)

    def router(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Logits [N, K], log R_k up to a constant."""
        joint = self._joint(x, t, condition)
        parts = [joint[:, self.clusters == k].logsumexp(-1) for k in range(self.count)]
        return torch.stack(parts, -1)

    def log_density(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """log p_t(x) [N]; of a class, log p_t(x, c)."""
        return self._joint(x, t, condition).logsumexp(-1)

    def by_score(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity [N, D] the second way, through the derivative of log p_t."""
        x = x.detach().requires_grad_()
        (score,) = torch.autograd.grad(self.log_density(x, t, condition).sum(), x)
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        rate = self.path.alpha_rate(t) / alpha
        factor = rate * sigma**2 - self.path.sigma_rate(t) * sigma
        return (spread(rate, x) * x + spread(factor, x) * score).detach()

    def _joint(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """log w_j p_j(x_t) [N, J]; components of other classes as good as nothing."""
        joint = self.log_densities(x, t) + self.log_weights
        if condition is None or self.labels is None:
            return joint
        own = (condition[:, None] < 0) | (condition[:, None] == self.labels)
        return torch.where(own, joint, LEAST)


class GaussianMixture(Exact):
    """Components N(means [J, D], covariances [J, D, D])."""

    def __init__(
        self,
        weights: Tensor,
        means: Tensor,
        covariances: Tensor,
        clusters: Tensor,
        labels: Tensor | None = None,
        path: Path = LINEAR,
    ) -> None:
        super().__init__(weights, clusters, labels, path)
        self.weights, self.means, self.covariances = weights, means.double(), covariances.double()
        self.variances, self.axes = torch.linalg.eigh(self.covariances)

    def log_densities(self, x: Tensor, t: Tensor) -> Tensor:
        z, v = self._along(x, t)
        return -0.5 * (z**2 / v + v.log() + math.log(2 * math.pi)).sum(-1)

    def ends(self, x: Tensor, t: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        z, v = self._along(x, t)
        alpha, sigma = spread(self.path.alpha(t), z), spread(self.path.sigma(t), z)
        x0 = self.means + alpha * self._back(self.variances * z / v)
        noise = sigma * self._back(z / v)
        return (shares[..., None] * x0).sum(1), (shares[..., None] * noise).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Data [n, D] and the components [n] they are of."""
        of = torch.multinomial(self.log_weights.exp(), n, True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        spun = torch.einsum("nde,ne->nd", self.axes[of], self.variances[of].sqrt() * z)
        return self.means[of] + spun, of

    def only(self, clusters: Sequence[int], path: Path | None = None) -> GaussianMixture:
        """The data of `clusters` alone, which keep their numbers."""
        at = torch.isin(self.clusters, torch.tensor(clusters))
        labels = None if self.labels is None else self.labels[at]
        parts = (self.weights[at], self.means[at], self.covariances[at], self.clusters[at])
        return GaussianMixture(*parts, labels, path or self.path)

    def _along(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """z [N, J, D] and v [N, J, D]."""
        alpha, sigma = self.path.alpha(t)[:, None, None], self.path.sigma(t)[:, None, None]
        away = x[:, None, :] - alpha * self.means
        return torch.einsum("jde,njd->nje", self.axes, away), alpha**2 * self.variances + sigma**2

    def _back(self, z: Tensor) -> Tensor:
        return torch.einsum("jde,nje->njd", self.axes, z)


class Empirical(Exact):
    """A data set as it is: a point mass on each of x [J, *S], taken flat, with its cluster."""

    def __init__(
        self, x: Tensor, clusters: Tensor, labels: Tensor | None = None, path: Path = LINEAR
    ) -> None:
        super().__init__(torch.ones(len(x)), clusters, labels, path)
        self.points = x.flatten(1).double()

    def log_densities(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.path.alpha(t)[:, None], self._sigma(t)[:, None]
        squares = (x**2).sum(1, keepdim=True) + alpha**2 * (self.points**2).sum(1)
        away = squares - 2 * alpha * (x @ self.points.T)
        return -0.5 * away / sigma**2 - x.shape[1] * (sigma * math.sqrt(2 * math.pi)).log()

    def ends(self, x: Tensor, t: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
        x0 = shares @ self.points
        return x0, (x - spread(self.path.alpha(t), x) * x0) / spread(self._sigma(t), x)

    def only(self, clusters: Sequence[int]) -> Empirical:
        """The data of `clusters` alone, which keep their numbers."""
        at = torch.isin(self.clusters, torch.tensor(clusters))
        labels = None if self.labels is None else self.labels[at]
        return Empirical(self.points[at], self.clusters[at], labels, self.path)

    def _sigma(self, t: Tensor) -> Tensor:
        return self.path.sigma(t).clamp(min=SMALL)
