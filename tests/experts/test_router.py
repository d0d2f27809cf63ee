"""The router: log π where batches are balanced, calibration, and samples of the experts' own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from decent.experts.router import (
    PriorCorrected,
    Routing,
    calibration,
    generated,
    nats,
    prior_error,
)
from decent.experts.settings import RouterTable

PI, MEANS, SPREAD = (0.8, 0.2), (-1.0, 1.5), 0.5


def log_likelihoods(x: Tensor, t: Tensor) -> Tensor:
    """log p_t(x | k) [N, 2] of two Gaussians N(m_k, SPREAD²) on the linear path."""
    a, s = 1 - t[:, None], t[:, None]
    variance = (a * SPREAD) ** 2 + s**2
    return -((x - a * torch.tensor(MEANS)) ** 2) / (2 * variance) - variance.log() / 2


class Balanced(nn.Module):
    """What balanced batches teach: the posterior under equal shares."""

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return log_likelihoods(x, t)


def exact(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    return log_likelihoods(x, t) + torch.tensor(PI).log()


def data(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    clusters = (torch.rand(n) < PI[1]).long()
    return torch.tensor(MEANS)[clusters, None] + SPREAD * torch.randn(n, 1), clusters


def test_log_pi_makes_a_balanced_router_the_posterior() -> None:
    x, t = torch.linspace(-3, 3, 50)[:, None], torch.rand(50)
    corrected = PriorCorrected.of(Balanced(), PI)(x, t).softmax(1)
    torch.testing.assert_close(corrected, exact(x, t).softmax(1))
    assert (Balanced()(x, t).softmax(1) - corrected).abs().max() > 0.2


def test_the_prior_is_seen_at_t_1() -> None:
    assert prior_error(exact, PI, (1,)) < 1e-6
    assert prior_error(Balanced(), PI, (1,)) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_that_of_its_batches(balanced: bool) -> None:
    """The exact posterior of the batches is better than that of other shares."""
    x, clusters = data(4000)
    torch.manual_seed(1)
    table = RouterTable(batch_size=20_000, balanced=balanced)
    routing = Routing(x, clusters, None, table)
    right, wrong = (Balanced(), exact) if balanced else (exact, Balanced())
    losses = []
    for model in (right, wrong):
        torch.manual_seed(2)
        losses.append(float(routing(model)))  # type: ignore[arg-type]
    assert losses[0] < losses[1] - 0.02


def test_balanced_batches_have_each_cluster_alike() -> None:
    x, clusters = data(1000)
    rows = Routing(x, clusters, None, RouterTable(batch_size=5000, balanced=True))._rows()
    assert clusters[rows].float().mean() == pytest.approx(0.5, abs=0.03)


def test_calibration_of_the_exact_posterior() -> None:
    x, clusters = data(20_000)
    bins = calibration(exact, x, clusters, bins=4)
    assert [(each.low, each.high) for each in bins] == [
        (0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0),
    ]  # fmt: skip
    for each in bins:
        assert each.cross_entropy == pytest.approx(each.entropy, abs=0.02)
    assert bins[0].accuracy > 0.97
    assert bins[-1].cross_entropy < nats(PI) + 0.01
    overconfident = calibration(lambda *a: 5 * exact(*a), x, clusters, bins=4)
    assert overconfident[-1].cross_entropy > overconfident[-1].entropy + 0.2


def test_samples_of_the_experts_come_in_proportion() -> None:
    """Each expert is the exact flow of a Gaussian of its own."""

    def expert(mean: float) -> nn.Module:
        class Own(nn.Module):
            def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
                a, s = 1 - t[:, None], t[:, None]
                gain = (s - a * SPREAD**2) / ((a * SPREAD) ** 2 + s**2)
                return gain * (x - a * mean) - mean

        return Own()

    x, clusters, labels = generated([expert(mean) for mean in MEANS], PI, 500, (1,), 0)
    assert labels is None
    assert [int((clusters == k).sum()) for k in (0, 1)] == [400, 100]
    for k, mean in enumerate(MEANS):
        own = x[clusters == k]
        assert own.mean() == pytest.approx(mean, abs=5 * SPREAD / math.sqrt(len(own)))
        assert own.std() == pytest.approx(SPREAD, rel=0.3)
