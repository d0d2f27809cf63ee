"""Solvers converge with their order; samples don't depend on their batches."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from decent.errors import ConfigError, RuntimeFault
from decent.experts.ensemble import Ensemble
from decent.experts.exact import GaussianMixture
from decent.experts.path import COSINE, LINEAR, Path
from decent.experts.sampling import sample
from decent.experts.solvers import END

MEAN, DEVIATION = torch.tensor([0.5, -1.0]).double(), torch.tensor([0.3, 2.0]).double()


def gaussian(path: Path = LINEAR) -> GaussianMixture:
    one = torch.ones(1)
    return GaussianMixture(one, MEAN[None], (DEVIATION**2).diag()[None], torch.zeros(1), path=path)


def noise(n: int = 16, *shape: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(n, *(shape or (2,)), generator=draw, dtype=torch.float64)


def error(method: str, steps: int, path: Path = LINEAR) -> float:
    """Of one Gaussian the flow carries noise z to m + s z, at every time α m + √(α²s² + σ²) z."""
    x = sample(gaussian(path).velocity, noise(), steps, method).x
    return (x - (MEAN + DEVIATION * noise())).abs().max().item()


@pytest.mark.parametrize("path", [LINEAR, COSINE], ids=lambda path: path.name)
@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(method: str, order: int, path: Path) -> None:
    errors = [error(method, steps, path) for steps in (100, 200, 400)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_adaptive_errs_by_its_tolerance() -> None:
    loose, tight = error("adaptive:1e-3", 10), error("adaptive:1e-6", 10)
    assert loose < 1e-2
    assert tight < max(1e-4, 4 * END**2)


def test_adaptive_takes_more_calls_for_less_error_and_few_for_straight_lines() -> None:
    def calls(method: str, model) -> int:
        return sample(model, noise(), 5, method).metadata["evaluations"]

    velocity = gaussian().velocity
    assert calls("adaptive:1e-3", velocity) < calls("adaptive:1e-7", velocity)
    assert calls("adaptive", lambda x, t, c: torch.ones_like(x)) < 20


@pytest.mark.parametrize(
    ("method", "strategy"),
    [("euler", "nucleus:0.9"), ("heun", "sample:1"), ("adaptive", "nucleus:0.9"),
     ("adaptive", "ancestral")],
)  # fmt: skip
def test_samples_do_not_depend_on_their_batches(method: str, strategy: str) -> None:
    draw = torch.Generator().manual_seed(1)
    means = 2 * torch.randn(6, 2, generator=draw)
    covariances = torch.eye(2).expand(6, 2, 2) * 0.1
    data = GaussianMixture(torch.ones(6), means, covariances, torch.arange(6) % 3)
    ensemble = Ensemble(data.experts, data.router, data.pi, strategy)
    whole = sample(ensemble, (20, 2), 8, method, seed=4).x
    parts = sample(ensemble, (20, 2), 8, method, seed=4, batch=6).x
    fewer = sample(ensemble, (5, 2), 8, method, seed=4).x
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.allclose(whole[:5], fewer, atol=1e-5)
    assert not torch.allclose(whole, sample(ensemble, (20, 2), 8, method, seed=5).x)


def test_the_state_of_the_global_generator_is_not_touched() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sample(lambda x, t, c: x, (3, 2), 2)
    assert torch.equal(before, torch.get_rng_state())


def test_progress_condition_and_metadata() -> None:
    seen: list[tuple[int, int]] = []
    labels = torch.arange(5)

    def model(x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        return -condition[:, None].to(x).expand_as(x)

    result = sample(
        model, torch.zeros(5, 3), 4, condition=labels, batch=2,
        on_step=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert torch.allclose(result.x, labels[:, None].float().expand(5, 3))
    assert seen == [(i, 12) for i in range(1, 13)]
    assert result.metadata == {
        "method": "euler", "steps": 4, "guidance": 1.0, "seed": 0, "shape": [5, 3],
        "evaluations": 12,
    }  # fmt: skip


def test_noise_given_is_left_as_it_was_and_images_work() -> None:
    given = noise(3, 1, 4, 4)
    before = given.clone()
    for method in ("euler", "heun", "adaptive"):
        assert sample(lambda x, t, c: x, given, 3, method).x.shape == given.shape
    assert torch.equal(given, before)
    assert sample(nn.Identity(), (0, 2), 3).x.shape == (0, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "rk4"}, "euler, heun"),
        ({"method": "adaptive:2"}, "a tolerance between 0 and 1"),
        ({"method": "adaptive:x"}, "a tolerance between 0 and 1"),
        ({"steps": 0}, "steps = 0"),
        ({"batch": 0}, "batch = 0"),
        ({"condition": torch.zeros(2)}, "condition for 2 of 3"),
        ({"clusters": torch.zeros(2)}, "clusters for 2 of 3"),
    ],
)
def test_what_cannot_be_sampled(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sample(lambda x, t, c: x, (3, 2), **settings)


@pytest.mark.parametrize("method", ["euler", "heun", "adaptive"])
def test_velocities_that_blow_up_are_a_fault(method: str) -> None:
    with pytest.raises(RuntimeFault, match="blow up"):
        sample(lambda x, t, c: x / 0, (3, 2), 4, method)
