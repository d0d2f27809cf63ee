"""The identities of decentralized flow matching, on data whose flows are known, to 1e-9."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from decent.experts.ensemble import Ensemble
from decent.experts.exact import Empirical, Exact, GaussianMixture
from decent.experts.guidance import Guided
from decent.experts.path import COSINE, LINEAR, Path
from decent.experts.prediction import AsVelocity, Prediction
from decent.experts.sampling import sample

TOLERANCE = 1e-9


def mixture(path: Path = LINEAR) -> GaussianMixture:
    """12 components of the plane, full covariances; component j in cluster j mod 4, class j mod 3,
    so that neither clusters nor classes lie together."""
    draw = torch.Generator().manual_seed(1)
    spread = 0.3 * torch.randn(12, 2, 2, generator=draw, dtype=torch.float64)
    covariances = spread @ spread.mT + 0.02 * torch.eye(2, dtype=torch.float64)
    means = 3 * torch.randn(12, 2, generator=draw, dtype=torch.float64)
    weights = torch.rand(12, generator=draw, dtype=torch.float64) + 0.1
    components = torch.arange(12)
    return GaussianMixture(weights, means, covariances, components % 4, components % 3, path)


def points(n: int = 1000, dims: int = 2) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    x = 2 * torch.randn(n, dims, generator=draw, dtype=torch.float64)
    return x, 0.01 + 0.98 * torch.rand(n, generator=draw, dtype=torch.float64)


def ensemble(exact: Exact, strategy: str = "full") -> Ensemble:
    return Ensemble(exact.experts, exact.router, exact.pi, strategy)


def apart(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().max().item()


@pytest.mark.parametrize("path", [LINEAR, COSINE], ids=lambda path: path.name)
def test_exact_experts_weighted_by_the_exact_router_are_the_marginal_flow(path: Path) -> None:
    data, (x, t) = mixture(path), points()
    mixed = ensemble(data)(x, t)
    assert apart(mixed, data.velocity(x, t)) < TOLERANCE
    assert apart(mixed, data.by_score(x, t)) < TOLERANCE


def test_uniform_weights_and_the_best_expert_alone_are_not() -> None:
    data, (x, t) = mixture(), points()
    uniform = Ensemble(data.experts, lambda x, t, c: torch.zeros(len(x), 4), strategy="full")
    assert apart(uniform(x, t), data.velocity(x, t)) > 1
    assert (ensemble(data, "top_k:1")(x, t) - data.velocity(x, t)).norm(dim=1).mean() > 0.1


@pytest.mark.parametrize("strategy", ["top_k:1", "top_k:2", "nucleus:0.9", "threshold:0.1"])
def test_a_truncation_errs_by_what_it_leaves_out_times_the_experts_spread(strategy: str) -> None:
    data, (x, t) = mixture(), points()
    cut = ensemble(data, strategy)
    kept = (data.router(x, t).softmax(-1) * (cut.weights(x, t) > 0)).sum(-1)
    each = torch.stack([expert(x, t) for expert in data.experts], 1)
    spread = torch.cdist(each, each).amax((1, 2))
    error = (cut(x, t) - data.velocity(x, t)).norm(dim=1)
    assert (error <= (1 - kept) * spread + TOLERANCE).all()


def test_a_router_of_balanced_batches_needs_the_prior() -> None:
    data, (x, t) = mixture(), points()
    log_pi = torch.tensor(data.pi, dtype=torch.float64).log()

    def balanced(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return data.router(x, t, condition) - log_pi

    def corrected(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return balanced(x, t, condition) + log_pi

    wrong, right = (Ensemble(data.experts, each, None, "full") for each in (balanced, corrected))
    assert apart(wrong(x, t), data.velocity(x, t)) > 1e-2
    assert apart(right(x, t), data.velocity(x, t)) < TOLERANCE


def test_at_pure_noise_the_router_is_the_prior() -> None:
    data, (x, t) = mixture(), points()
    p = data.router(x, torch.ones_like(t)).softmax(-1)
    assert apart(p, torch.tensor(data.pi, dtype=torch.float64)) < TOLERANCE


def test_the_same_noise_becomes_the_same_samples() -> None:
    data, noise = mixture(), torch.randn(200, 2, dtype=torch.float64)
    alone = sample(data.velocity, noise, steps=200).x
    assert apart(sample(ensemble(data), noise, steps=200).x, alone) < TOLERANCE


def test_experts_of_four_kinds_over_two_paths_mix_exactly() -> None:
    linear, cosine, (x, t) = mixture(LINEAR), mixture(COSINE), points()
    t = 0.02 + 0.96 * t  # beyond, a prediction's denominator is kept above its floor
    experts = [
        AsVelocity(cosine.expert(0, "noise"), Prediction("noise", "cosine")),
        AsVelocity(linear.expert(1, "data"), Prediction("data")),
        AsVelocity(cosine.expert(2, "v"), Prediction("v", "cosine")),
        AsVelocity(cosine.expert(3), Prediction("velocity", "cosine")),
    ]
    mixed = Ensemble(experts, linear.router, strategy="full")(x, t)
    assert apart(mixed, linear.velocity(x, t)) < TOLERANCE
    onto = [AsVelocity(linear.expert(k), Prediction(), COSINE) for k in range(4)]
    mixed = Ensemble(onto, cosine.router, strategy="full")(x, t)
    assert apart(mixed, cosine.velocity(x, t)) < TOLERANCE


def test_without_an_expert_the_ensemble_is_the_flow_of_the_rest() -> None:
    data, (x, t) = mixture(), points()
    rest = ensemble(data)
    rest.lost[1], rest.floor = "for the test", 0.0
    assert apart(rest(x, t), data.only([0, 2, 3]).velocity(x, t)) < TOLERANCE


def test_conditions_need_a_router_that_sees_them() -> None:
    data, (x, t) = mixture(), points()
    condition = torch.arange(len(x)) % 4 - 1
    assert apart(ensemble(data)(x, t, condition), data.velocity(x, t, condition)) < TOLERANCE
    blind = Ensemble(data.experts, lambda x, t, c: data.router(x, t), strategy="full")
    assert (blind(x, t, condition) - data.velocity(x, t, condition)).norm(dim=1).mean() > 0.1


def test_guidance_combines_then_guides() -> None:
    data, (x, t) = mixture(), points()
    condition = torch.arange(len(x)) % 3
    free, conditional = data.velocity(x, t), data.velocity(x, t, condition)
    reference = free + 4 * (conditional - free)
    assert apart(Guided(ensemble(data), 4)(x, t, condition), reference) < 10 * TOLERANCE
    each = [Guided(expert, 4) for expert in data.experts]
    blind = Ensemble(each, lambda x, t, c: data.router(x, t), strategy="full")
    assert (blind(x, t, condition) - reference).norm(dim=1).mean() > 1


def test_a_data_set_as_it_is() -> None:
    x0, labels = (torch.from_numpy(each) for each in load_digits(return_X_y=True))
    x0 = x0 / 8 - 1
    data = Empirical(x0, torch.arange(len(x0)) % 5, labels.long())
    draw = torch.Generator().manual_seed(3)
    noise = torch.randn(64, 64, generator=draw, dtype=torch.float64)
    for at in (0.05, 0.3, 0.6, 0.99, 1.0):
        t = torch.full((64,), at, dtype=torch.float64)
        x = (1 - at) * x0[:64] + at * noise
        flow = data.velocity(x, t)
        assert apart(ensemble(data)(x, t), flow) < TOLERANCE
        if at < 1:
            assert apart(data.by_score(x, t), flow) < TOLERANCE * flow.abs().max()
        condition = labels[:64].long()
        assert apart(ensemble(data)(x, t, condition), data.velocity(x, t, condition)) < TOLERANCE
        rest = ensemble(data)
        rest.lost[0], rest.floor = "for the test", 0.0
        assert apart(rest(x, t), data.only([1, 2, 3, 4]).velocity(x, t)) < TOLERANCE


def test_integrated_the_flow_of_a_data_set_ends_on_its_points() -> None:
    x0 = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    data = Empirical(x0, torch.arange(50) % 2)
    for method in ("euler", "heun", "adaptive"):
        x = sample(data.velocity, torch.randn(20, 3, dtype=torch.float64), 50, method).x
        assert torch.cdist(x, x0).amin(1).max() < 1e-6


def test_samples_of_a_mixture_are_its_own() -> None:
    data = mixture()
    x, of = data.sample(4000, torch.Generator().manual_seed(5))
    weights = data.log_weights.exp()
    assert apart(torch.bincount(of, minlength=12) / 4000, weights) < 0.05
    mean = (weights[:, None] * data.means).sum(0)
    assert apart(x.mean(0), mean) < 0.3
