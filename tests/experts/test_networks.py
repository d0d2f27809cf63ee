"""Networks: shapes, the linear skip, conditions, what they cost, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from decent.errors import ModelError
from decent.experts.metrics import multiply_adds
from decent.experts.networks import build
from decent.experts.networks.dit import positions

MADE = [("mlp", (6,), {}), ("mlp", (1, 4, 4), {"width": 8}), ("dit", (2, 8, 12), {"width": 16})]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def stirred(module: nn.Module) -> nn.Module:
    """With random weights everywhere, also where training starts from 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.2)
    return module


@pytest.mark.parametrize(("name", "shape", "options"), MADE)
def test_an_untrained_expert_is_the_best_linear_one_for_white_data(
    name: str, shape: tuple[int, ...], options: dict[str, int]
) -> None:
    x, t = torch.randn(5, *shape), torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0])
    best = (2 * t - 1) / ((1 - t) ** 2 + t**2)  # E[ε − x₀ | x_t] / x_t, both standard normal
    expected = best.view(-1, *[1] * len(shape)) * x
    torch.testing.assert_close(build(name, shape, **options)(x, t), expected)


@pytest.mark.parametrize(("name", "shape", "options"), MADE)
def test_no_condition_is_the_condition_minus_one(
    name: str, shape: tuple[int, ...], options: dict[str, int]
) -> None:
    network = stirred(build(name, shape, classes=3, **options)).eval()
    x, t = torch.randn(4, *shape), torch.rand(4)
    known, unknown = torch.tensor([0, 1, 2, -1]), torch.full((4,), -1)
    torch.testing.assert_close(network(x, t, unknown), network(x, t))
    apart = (network(x, t, known) - network(x, t)).flatten(1).abs().amax(1)
    assert (apart[:3] > 1e-3).all()
    assert apart[3] < 1e-5


@pytest.mark.parametrize(("name", "shape", "options"), MADE)
def test_routers_give_logits_and_rows_do_not_touch(
    name: str, shape: tuple[int, ...], options: dict[str, int]
) -> None:
    router = stirred(build(name, shape, outputs=7, **options))
    x, t = torch.randn(3, *shape), torch.rand(3)
    logits = router(x, t)
    assert logits.shape == (3, 7)
    torch.testing.assert_close(router(x[1:2], t[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("name", "shape", "options"), MADE)
def test_routers_learn(name: str, shape: tuple[int, ...], options: dict[str, int]) -> None:
    """Bright from dark: what starts from 0 must not stay there."""
    router = build(name, shape, outputs=2, **options)
    optimizer = torch.optim.Adam(router.parameters(), lr=1e-2)
    for _ in range(60):
        bright = torch.randint(2, (32,))
        x = torch.randn(32, *shape) + (2 * bright - 1).reshape(-1, *[1] * len(shape))
        logits = router(x, torch.full((32,), 0.5))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, bright).backward()
        optimizer.step()
    assert (logits.argmax(1) == bright).float().mean() > 0.8


def test_the_mlp_costs_what_it_says() -> None:
    assert multiply_adds(build("mlp", (64,)), (64,)) == 61_440
    assert multiply_adds(build("mlp", (64,), outputs=8, width=48), (64,)) == 34_176


def test_the_dit_puts_patches_back_where_they_were() -> None:
    network = stirred(build("dit", (1, 8, 8), patch=2, width=16, depth=1, heads=2))
    nn.init.zeros_(network.get_submodule("blocks.0.modulation").weight)
    nn.init.zeros_(network.get_submodule("blocks.0.modulation").bias)
    x, t = torch.randn(1, 1, 8, 8), torch.tensor([0.5])
    moved = x.clone()
    moved[0, 0, 2:4, 6:8] += 1  # without attention one patch in is one patch out
    changed = (network(moved, t) - network(x, t))[0, 0].abs() > 1e-6
    assert changed[2:4, 6:8].any()
    changed[2:4, 6:8] = False
    assert not changed.any()


def test_positions_are_all_different() -> None:
    places = positions(5, 7, 16)
    assert places.shape == (35, 16)
    assert (torch.cdist(places, places) + torch.eye(35)).min() > 0.1


class Own(nn.Module):
    """A network of a user's own."""

    def __init__(
        self, shape: tuple[int, ...], classes: int, outputs: int | None, gain: float
    ) -> None:
        super().__init__()
        self.gain = gain


def test_a_network_of_ones_own() -> None:
    assert build(f"{__file__}:Own", (3,), gain=2.0).gain == 2.0


@pytest.mark.parametrize(
    ("name", "shape", "options", "text"),
    [
        ("mpl", (3,), {}, "Did you mean 'mlp'"),
        ("mlp", (3,), {"widht": 3}, "option 'widht'"),
        ("mlp", (3,), {"width": 0}, "width = 0"),
        ("mlp", (), {}, "shape"),
        ("dit", (3,), {}, r"\[C, H, W\]"),
        ("dit", (1, 9, 8), {}, "multiples of the patch"),
        ("dit", (1, 8, 8), {"width": 10}, "multiple of 4"),
    ],
)
def test_what_cannot_be_is_refused(
    name: str, shape: tuple[int, ...], options: dict[str, int], text: str
) -> None:
    with pytest.raises(ModelError, match=text):
        build(name, shape, **options)
