"""Paths: their ends, their derivatives, the time of a ratio; predictions near the ends."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decent.errors import ConfigError
from decent.experts.path import PATHS, Path, noised, path, velocity
from decent.experts.prediction import AsVelocity, Prediction

each_path = pytest.mark.parametrize("chosen", PATHS.values(), ids=str)


@each_path
def test_data_at_0_noise_at_1(chosen: Path) -> None:
    ends = torch.tensor([0.0, 1.0])
    assert chosen.alpha(ends).tolist() == [1, 0]
    assert chosen.sigma(ends).tolist() == [0, 1]


@each_path
def test_rates_are_derivatives_and_velocity_that_of_the_state(chosen: Path) -> None:
    t = torch.linspace(0.05, 0.95, 50, dtype=torch.float64)
    x0, noise = torch.randn(2, 50, 3, dtype=torch.float64)
    step = 1e-6
    ahead, behind = (noised(chosen, x0, noise, t + h) for h in (step, -step))
    measured = (ahead - behind) / (2 * step)
    assert torch.allclose(measured, velocity(chosen, x0, noise, t), atol=1e-8)


@each_path
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_time_of_a_ratio(chosen: Path, dtype: torch.dtype) -> None:
    t = torch.tensor([0, 1e-6, 1e-3, 0.2, 0.5, 0.9, 0.999, 1.0], dtype=dtype)
    back = chosen.at_ratio(chosen.sigma(t) / chosen.alpha(t))
    assert torch.allclose(back, t, rtol=1e-5, atol=0)


def test_an_unknown_path() -> None:
    with pytest.raises(ConfigError, match=r"'linear' or 'cosine'"):
        path("quadratic")


@given(
    kind=st.sampled_from(["velocity", "noise", "data", "v"]),
    of=st.sampled_from(["linear", "cosine"]),
    onto=st.sampled_from(["linear", "cosine"]),
    scale=st.sampled_from([1.0, 999.0]),
    at=st.floats(0.02, 0.98),
)
def test_a_perfect_prediction_becomes_the_velocity(
    kind: str, of: str, onto: str, scale: float, at: float
) -> None:
    own, target = path(of), path(onto)
    x0, noise = torch.randn(2, 4, 3, dtype=torch.float64)
    t = torch.full((4,), at, dtype=torch.float64)

    def module(x, time, condition=None):
        time = time / scale
        assert torch.allclose(x, noised(own, x0, noise, time))
        alpha, sigma = own.alpha(time)[:, None], own.sigma(time)[:, None]
        outputs = {"noise": noise, "data": x0, "v": alpha * noise - sigma * x0}
        return outputs.get(kind, velocity(own, x0, noise, time))

    model = AsVelocity(module, Prediction(kind, of, scale), target)
    answer = model(noised(target, x0, noise, t), t)
    assert torch.allclose(answer, velocity(target, x0, noise, t), atol=1e-9)


@pytest.mark.parametrize("kind", ["velocity", "noise", "data", "v"])
@pytest.mark.parametrize("of", ["linear", "cosine"])
def test_predictions_stay_finite_and_bounded_at_both_ends(kind: str, of: str) -> None:
    model = AsVelocity(lambda x, t, c: x / 2, Prediction(kind, of))
    x = torch.randn(3, 2, 2)
    for at in (0.0, 1e-9, 1 - 1e-7, 1.0):
        answer = model(x, torch.full((3,), at))
        assert answer.isfinite().all()
        assert answer.abs().max() <= 200 * x.abs().max()


def test_a_velocity_of_the_same_path_passes_through() -> None:
    x = torch.randn(3, 2)
    assert AsVelocity(lambda x, t, c: x, Prediction())(x, torch.ones(3)) is x
