"""Norm statistics: pooled exactly, measured anew, and nothing else touched."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from decent.errors import ModelError
from decent.learning import has_batch_norm, load_moments, moments, recalibrate
from decent.merge import average


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.GroupNorm(2, 4)
    )


def batches(count: int, shift: float = 0.0, size: int = 400) -> list[list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(int(shift * 10) + count)
    return [[torch.randn(size, 3, generator=generator) * 2 + shift] for _ in range(count)]


def test_which_models_have_statistics() -> None:
    assert has_batch_norm(net())
    assert not has_batch_norm(nn.GroupNorm(2, 4))
    assert not has_batch_norm(nn.BatchNorm1d(4, track_running_stats=False))
    assert moments(nn.Linear(1, 1)).shape == (0,)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=4))
@settings(max_examples=10, deadline=None)
def test_averaged_moments_are_those_of_the_pooled_data(shifts: list[float]) -> None:
    per_worker, pooled = [], []
    for shift in shifts:
        model = net()
        recalibrate(model, batches(2, shift))
        per_worker.append(moments(model)[:6])
        pooled += [batch[0] for batch in batches(2, shift)]
    weights = [float(2)] * len(shifts)
    both = torch.cat(pooled).double()
    merged = average(per_worker, weights)
    np.testing.assert_allclose(merged[:3], both.mean(0), atol=1e-5)
    np.testing.assert_allclose(merged[3:], (both**2).mean(0), rtol=0.01)


def test_moments_are_loaded_as_they_were_taken() -> None:
    one, two = net(), net()
    recalibrate(one, batches(3, 1.0))
    counters = [two[0].num_batches_tracked.clone(), two[3].num_batches_tracked.clone()]
    load_moments(two, moments(one))
    for layer in (0, 3):
        torch.testing.assert_close(two[layer].running_mean, one[layer].running_mean)
        torch.testing.assert_close(two[layer].running_var, one[layer].running_var)
    assert [two[0].num_batches_tracked, two[3].num_batches_tracked] == counters
    for bad in (np.zeros(3), np.full(14, np.nan)):
        with pytest.raises(ModelError, match="14 finite values"):
            load_moments(two, bad)


def test_recalibration_measures_the_data_and_touches_nothing_else() -> None:
    model = net()
    model[0].momentum, model[3].training = 0.3, False
    flags = [module.training for module in model.modules()]
    weights = [parameter.clone() for parameter in model.parameters()]
    random = torch.get_rng_state()

    def drawn() -> Iterator[torch.Tensor]:
        while True:
            yield torch.randn(50, 3) + 4

    recalibrate(model, drawn(), lambda model, batch: model(batch), limit=5)
    assert model[0].num_batches_tracked == 5
    assert torch.allclose(model[0].running_mean, torch.tensor(4.0), atol=0.3)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == flags
    assert [model[0].momentum, model[3].momentum] == [0.3, 0.1]
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_recalibration_comes_back_from_errors() -> None:
    model = net()
    before = moments(model)
    with pytest.raises(ModelError, match="no batch"):
        recalibrate(model, [])
    np.testing.assert_array_equal(moments(model), before)
    with pytest.raises(RuntimeError):
        recalibrate(model, [torch.zeros(4, 7)])
    assert model[0].momentum == 0.1
    assert model[0].training
