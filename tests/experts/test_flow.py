"""The flow-matching loss and its times."""

from __future__ import annotations

import pytest
import torch

from decent.errors import ConfigError
from decent.experts.flow import draw_times, dropped, flow_loss
from decent.experts.path import COSINE, LINEAR, Path, velocity


@pytest.mark.parametrize("path", [LINEAR, COSINE])
def test_the_loss_is_the_mean_square_error_of_the_velocity(path: Path) -> None:
    torch.manual_seed(0)
    x0, noise, t = torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.rand(5)
    right = velocity(path, x0, noise, t)
    off = torch.arange(5.0)[:, None, None]

    def model(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        return right + off

    each = flow_loss(model, x0, noise, t, path=path, reduce=False)
    torch.testing.assert_close(each, torch.arange(5.0) ** 2)
    torch.testing.assert_close(flow_loss(model, x0, noise, t, path=path), each.mean())


@pytest.mark.parametrize(
    ("how", "median", "upper"),
    [("uniform", 0.5, 0.75), ("logit_normal", 0.5, 0.6625), ("logit_normal:1:0.5", 0.7311, 0.7921)],
)
def test_times_have_their_quartiles(how: str, median: float, upper: float) -> None:
    t = draw_times(40_000, how, torch.Generator().manual_seed(1))
    assert t.min() >= 0
    assert t.max() <= 1
    found = t.quantile(torch.tensor([0.5, 0.75]))
    torch.testing.assert_close(found, torch.tensor([median, upper]), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    "how", ["normal", "logit_normal:1", "logit_normal:0:0", "logit_normal:a:b"]
)
def test_other_times_are_refused(how: str) -> None:
    with pytest.raises(ConfigError, match="uniform"):
        draw_times(3, how)


def test_conditions_are_dropped_in_proportion() -> None:
    torch.manual_seed(0)
    labels = torch.arange(10_000) % 10
    kept = dropped(labels, 0.2)
    assert kept is not None
    gone = kept == -1
    assert abs(gone.float().mean() - 0.2) < 0.02
    assert (kept[~gone] == labels[~gone]).all()
    assert dropped(None, 0.2) is None
