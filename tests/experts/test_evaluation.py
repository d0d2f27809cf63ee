"""Likelihood, losses, distances and pictures, against what is known."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from decent.errors import ConfigError, ModelError
from decent.experts import pictures
from decent.experts.ensemble import Ensemble
from decent.experts.exact import GaussianMixture
from decent.experts.likelihood import bits_per_dimension, log_likelihood
from decent.experts.metrics import PairedLoss, estimate, frechet, multiply_adds, occupancy


def mixture(seed: int = 0, components: int = 4) -> GaussianMixture:
    draw = torch.Generator().manual_seed(seed)
    means = torch.randn(components, 3, generator=draw)
    covariances = torch.diag_embed(0.2 + torch.rand(components, 3, generator=draw))
    return GaussianMixture(torch.ones(components), means, covariances, torch.arange(components) % 2)


def drawn(data: GaussianMixture, n: int, seed: int = 0) -> Tensor:
    return data.sample(n, torch.Generator().manual_seed(seed))[0]


def test_the_likelihood_of_an_ensemble_is_the_known_density() -> None:
    data = mixture()
    x = drawn(data, 30)
    ensemble = Ensemble(data.experts, data.router, data.pi, "full")
    known = data.log_density(x, torch.zeros(30, dtype=torch.float64))
    found = log_likelihood(ensemble, x, steps=80, start=0)
    assert torch.allclose(found, known, atol=5e-3)
    coarse = log_likelihood(ensemble, x, steps=40, start=0)
    assert (coarse - known).abs().max() > 3 * (found - known).abs().max()  # order 2


def test_hutchinson_is_unbiased() -> None:
    data = mixture()
    x = drawn(data, 1).expand(400, -1)
    exact = log_likelihood(data.velocity, x[:1], steps=20)
    guessed = log_likelihood(data.velocity, x, steps=20, divergence="hutchinson")
    error = guessed.std() / math.sqrt(len(guessed))
    assert abs(guessed.mean() - exact) < 4 * error + 1e-12


def test_bits_of_a_byte_drawn_evenly() -> None:
    uniform = torch.tensor([-2 * math.log(2.0)])  # two values, each even over [−1, 1]
    assert bits_per_dimension(uniform, 2, 2 / 256).item() == pytest.approx(8)


def test_likelihoods_that_cannot_be_had() -> None:
    with pytest.raises(ModelError, match="without derivatives"):
        log_likelihood(lambda x, t, c: torch.zeros_like(x), torch.zeros(2, 3))
    with pytest.raises(ConfigError, match="steps = 0"):
        log_likelihood(lambda x, t, c: x, torch.zeros(2, 3), steps=0)


def test_paired_losses_compare_fields_far_better_than_they_measure_one() -> None:
    data = mixture()
    paired = PairedLoss(drawn(data, 4000), seed=3)
    full = Ensemble(data.experts, data.router, data.pi, "full")
    best = Ensemble(data.experts, data.router, data.pi, "top_k:1")
    exact, same, worse = (paired(each) for each in (data.velocity, full, best))
    assert torch.allclose(exact, same)
    gap = estimate(worse - exact)
    assert gap.mean > 4 * gap.error
    # what a field adds to the least loss is its distance from the flow
    apart = (best(paired.x, paired.t) - data.velocity(paired.x, paired.t)).square().mean(1)
    assert abs(gap.mean - estimate(apart).mean) < 4 * gap.error
    assert torch.allclose(paired(full, batch=777), same)
    assert torch.equal(PairedLoss(drawn(data, 4000), seed=3).x, paired.x)


def test_times_are_stratified_and_losses_come_by_time() -> None:
    paired = PairedLoss(torch.zeros(1000, 2), low=0, high=1)
    assert ((paired.t.sort().values * 1000).long() - torch.arange(1000)).abs().max() <= 1
    by_time = paired.by_time(paired.t, 4)
    assert by_time == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=1e-3)


def test_paired_losses_of_a_strategy_that_draws_repeat() -> None:
    data = mixture()
    paired = PairedLoss(drawn(data, 200))
    ensemble = Ensemble(data.experts, data.router, data.pi, "sample:1")
    assert torch.equal(paired(ensemble), paired(ensemble))


def test_frechet_distance_of_known_gaussians() -> None:
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    assert frechet(x, x) == pytest.approx(0, abs=1e-9)
    moved = frechet(x, x + torch.tensor([1.0, 2.0, 0.0]))
    assert moved == pytest.approx(5, abs=1e-5)
    variance = torch.cov(x.double().T).trace().item()
    assert frechet(x, 3 * x - 2 * x.mean(0)) == pytest.approx(4 * variance, rel=1e-5)
    assert frechet(x[:, :1], x[:, :1]) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError):
        frechet(x, x[:, :2])


def test_occupancy() -> None:
    assert occupancy(torch.tensor([0, 0, 1, 1]), [0.5, 0.5]) == 0
    assert occupancy(torch.tensor([0, 0, 0, 0]), [0.25, 0.25, 0.5]) == 0.75


def test_multiply_adds_of_layers() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3, padding=1)
            self.out = nn.Linear(4 * 25, 7)

        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            assert x.shape == (1, 1, 5, 5)
            return self.out(self.conv(x).flatten(1))

    assert multiply_adds(Net(), (1, 5, 5)) == 25 * 9 * 4 + 100 * 7


def test_a_grid_puts_images_in_rows() -> None:
    x = torch.linspace(-1, 1, 5)[:, None, None].expand(5, 2, 4)
    page = pictures.grid(x, columns=3)
    assert page.shape == (2 * 2 + 1, 3 * 4 + 2, 1)
    assert page[0, 0] == 0
    assert page[3, 5] == 255  # the fifth, white
    assert page[3, 13] == 255  # where no image is
    assert page[0, 5] == 64
    assert pictures.grid(torch.zeros(4, 3, 2, 2)).shape == (5, 5, 3)


@pytest.mark.parametrize("shape", [(4, 7), (0, 2, 2), (1, 2, 5, 5)])
def test_what_is_no_image(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"images \[N, H, W\]"):
        pictures.grid(torch.zeros(shape))


def test_a_grid_as_png(tmp_path: Path) -> None:
    from PIL import Image

    x = torch.rand(6, 3, 4, 5) * 2 - 1
    pictures.save(x, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        read = torch.tensor(list(image.convert("RGB").tobytes())).reshape(*image.size[::-1], 3)
    enlarged = pictures.grid(x).repeat_interleave(14, 0).repeat_interleave(14, 1)
    assert torch.equal(read.byte(), enlarged)
    assert [each.name for each in tmp_path.iterdir()] == ["grid.png"]
