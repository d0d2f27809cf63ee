"""A model and its vector are one: what either does, the other shows."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from decent.errors import ModelError
from decent.learning import Layout, bind, float_buffers, load_vector, to_vector


def mlp(widths: list[int], dtype: torch.dtype) -> nn.Module:
    layers = [nn.Linear(a, b, dtype=dtype) for a, b in pairwise(widths)]
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


def conv(channels: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, channels, kernel, padding=kernel // 2),
        nn.BatchNorm2d(channels),
        nn.Flatten(),
        nn.Linear(channels * 36, 2),
    )


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.into.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.into(tokens))


mlps = st.builds(
    mlp,
    st.lists(st.integers(1, 6), min_size=2, max_size=4),
    st.sampled_from([torch.float32, torch.float64]),
)
models = st.one_of(mlps, st.builds(conv, st.integers(1, 3), st.sampled_from([1, 3, 5])))


def room(model: nn.Module) -> np.ndarray:
    layout = Layout.of(model)
    return np.zeros(layout.numel, dtype=layout.dtype)


@given(models)
@settings(max_examples=40, deadline=None)
def test_bound_model_and_vector_are_one(model: nn.Module) -> None:
    objects = list(model.parameters())
    before = to_vector(model)
    vector = room(model)
    layout = bind(model, vector)
    assert all(a is b for a, b in zip(objects, model.parameters(), strict=True))
    np.testing.assert_array_equal(vector, before)
    vector[:] = np.arange(layout.numel)
    values = [p.detach().numpy().ravel() for p in model.parameters()]
    np.testing.assert_array_equal(np.concatenate(values), vector)
    for parameter, offset in zip(model.parameters(), layout.offsets, strict=True):
        parameter.data.fill_(-offset)
        assert (vector[offset : offset + parameter.numel()] == -offset).all()


@given(models, st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_load_vector_is_undone_by_to_vector(model: nn.Module, seed: int) -> None:
    vector = np.random.default_rng(seed).normal(size=room(model).shape).astype(room(model).dtype)
    given = vector.copy()
    given.flags.writeable = False
    load_vector(model, given)
    np.testing.assert_array_equal(to_vector(model), vector)
    bind(model, room(model))
    load_vector(model, torch.from_numpy(vector * 2))
    np.testing.assert_array_equal(to_vector(model), vector * 2)


OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    lambda p: torch.optim.AdamW(p, lr=0.01),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@given(model=mlps, bind_first=st.booleans(), seed=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_optimizers_step_alike_on_a_bound_model(
    make: Callable[..., torch.optim.Optimizer], model: nn.Module, bind_first: bool, seed: int
) -> None:
    free, vector = copy.deepcopy(model), room(model)
    if bind_first:
        bind(model, vector)
    optimizers = [make(m.parameters()) for m in (model, free)]
    if not bind_first:
        bind(model, vector)
    width = next(model.parameters()).shape[1]
    for step in range(3):
        torch.manual_seed(seed + step)
        X = torch.randn(4, width, dtype=next(model.parameters()).dtype)
        for m, optimizer in zip((model, free), optimizers, strict=True):
            optimizer.zero_grad()
            m(X).pow(2).sum().backward()
            optimizer.step()
    np.testing.assert_array_equal(vector, to_vector(free))


def test_tied_weights_lie_in_the_vector_once_and_stay_tied() -> None:
    model = Tied()
    vector = room(model)
    layout = bind(model, vector)
    assert layout.names == ("into.weight",)
    vector[:] = 2.0
    assert model.out.weight is model.into.weight
    assert (model(torch.tensor([3])) == 4 * 2.0 * 2.0).all()


def test_frozen_parameters_and_buffers_stay_out() -> None:
    model = conv(2, 3)
    model[3].weight.requires_grad_(False)
    assert Layout.of(model).names == ("0.weight", "0.bias", "1.weight", "1.bias", "3.bias")
    assert float_buffers(model) == ["1.running_mean", "1.running_var"]


def test_rebinding_moves_the_values_along() -> None:
    model = mlp([3, 2], torch.float32)
    first, second = room(model), torch.zeros(8)
    bind(model, first)
    first[:] = 5
    bind(model, second)
    assert second.tolist() == [5.0] * 8
    first[:] = 0
    assert (to_vector(model) == 5).all()


def test_another_process_changes_the_model(tmp_path: Path) -> None:
    model = mlp([3, 2], torch.float32)
    file = tmp_path / "vector"
    bind(model, np.memmap(file, np.float32, "w+", shape=8))
    script = "import sys, numpy; numpy.memmap(sys.argv[1], numpy.float32, 'r+')[:] = 7"
    subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    assert (to_vector(model) == 7).all()


def test_layouts_tell_models_apart() -> None:
    a, b = Layout.of(mlp([3, 2], torch.float32)), Layout.of(mlp([3, 4], torch.float32))
    double = Layout.of(mlp([3, 2], torch.float64))
    assert a == Layout.of(mlp([3, 2], torch.float32))
    assert a.describe_difference(a) == ""
    assert len({a.digest, b.digest, double.digest}) == 3
    assert a.describe_difference(b) == "parameter 0.weight has shape (2, 3) against (4, 3)"
    assert "dtype" in a.describe_difference(double)
    longer = Layout.of(mlp([3, 2, 1], torch.float32))
    assert "2.weight is on one side only" in a.describe_difference(longer)
    turned = Layout(a.names[::-1], a.shapes[::-1], a.dtype)
    assert "stands where" in a.describe_difference(turned)
    assert a.digest != turned.digest


def _mixed() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double())


def _broken() -> nn.Module:
    model = mlp([2, 2], torch.float32)
    model[0].bias.data[1] = math.nan
    return model


def _entangled() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight.data = model[0].weight.data
    return model


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (nn.ReLU, "without learnable parameters"),
        (_mixed, "1.weight is float64 and 0.weight is float32"),
        (lambda: nn.Linear(1, 1).bfloat16(), "bfloat16.*float32 or float64.*autocast"),
        (lambda: nn.Linear(1, 1, device="meta"), "on meta.*mirrored on the host"),
        (lambda: nn.LazyLinear(2), "no shape yet"),
        (_broken, "0.bias holds NaN"),
        (_entangled, "0.weight and 1.weight share memory"),
    ],
)
def test_bind_refuses_models(make: Callable[[], nn.Module], complaint: str) -> None:
    model = make()
    numel = sum(p.numel() for p in model.parameters() if not nn.parameter.is_lazy(p))
    with pytest.raises(ModelError, match=complaint):
        bind(model, np.zeros(numel, np.float32))


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(7, np.float32),
        np.zeros(8),
        np.zeros((2, 4), np.float32),
        np.zeros(16, np.float32)[::2],
        torch.zeros(16)[::2],
        np.broadcast_to(np.float32(0), 8),
    ],
)
def test_bind_refuses_vectors_and_leaves_the_model(vector: np.ndarray) -> None:
    model = mlp([3, 2], torch.float32)
    before = to_vector(model)
    with pytest.raises(ModelError):
        bind(model, vector)
    np.testing.assert_array_equal(to_vector(model), before)
