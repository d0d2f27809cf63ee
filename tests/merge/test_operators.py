"""Operators by name, and the weighted mean on numpy and torch arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.errors import ConfigError, ModelError
from decent.merge import Apart, Mean, Merge, Weighted, average, get, kept_apart
from decent.schedule import Never, Poisson


class ByRoot:
    name = "by-root"

    def weight(self, samples: int) -> float:
        return samples**0.5


READY = ByRoot()


def factory() -> ByRoot:
    return READY


def test_operators_weigh_workers() -> None:
    assert [Mean().weight(n) for n in (0, 8, 800)] == [1.0, 1.0, 1.0]
    assert [Weighted().weight(n) for n in (0, 8, 800)] == [0.0, 8.0, 800.0]
    with pytest.raises(ModelError, match="-1 samples"):
        Weighted().weight(-1)


@pytest.mark.parametrize("name", ["mean", "weighted", "apart"])
def test_built_in_operators_by_name(name: str) -> None:
    assert get(name).name == name


def test_who_exchanges_is_not_apart() -> None:
    assert kept_apart(Apart(), Never())
    assert not kept_apart(Mean(), Never())
    with pytest.raises(ConfigError, match=r"'apart'.*the schedule 'never'"):
        kept_apart(Apart(), Poisson())


@pytest.mark.parametrize("attribute", ["ByRoot", "READY", "factory"])
def test_operators_of_the_users_own(attribute: str) -> None:
    operator = get(f"{__name__}:{attribute}")
    assert isinstance(operator, Merge)
    assert operator.weight(9) == 3.0


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(ModelError, match="'median': expected one of mean, weighted, apart"):
        get("median")


@pytest.mark.parametrize("name", ["no_such_module:x", "math:no", ":x", "math:pi", "json:loads"])
def test_what_is_no_operator_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=name):
        get(name)


@given(
    st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=5).filter(any),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_average_is_the_weighted_mean(weights: list[float], seed: int) -> None:
    arrays = [np.random.default_rng(seed + i).normal(size=(3, 2)) for i in range(len(weights))]
    expected = np.average(arrays, axis=0, weights=weights)
    np.testing.assert_allclose(average(arrays, weights), expected, atol=1e-12)
    tensors = [torch.from_numpy(array) for array in arrays]
    np.testing.assert_allclose(average(tensors, weights).numpy(), expected, atol=1e-12)


def test_low_precision_is_summed_in_double() -> None:
    tensors = [torch.full((4,), 1.0, dtype=torch.bfloat16)] * 1000
    assert torch.equal(average(tensors, [1.0] * 1000), tensors[0])
    halves = [np.full(3, 60000, dtype=np.float16)] * 3
    merged = average(halves, [1, 1, 1])
    assert merged.dtype == np.float16
    assert np.array_equal(merged, halves[0])


def test_one_array_is_held_at_a_time_and_weight_zero_leaves_out() -> None:
    stream = (np.full(2, value) for value in (1.0, np.nan, 3.0))
    assert average(stream, [1, 0, 1]).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("arrays", "weights", "complaint"),
    [
        ([np.ones(2), np.ones(3)], [1, 1], r"array 1 has shape \(3,\)"),
        ([np.ones(2), np.ones(2, np.float32)], [1, 1], "float32: expected .*float64"),
        ([np.ones(2, int)], [1], "floating-point"),
        ([torch.ones(2, dtype=torch.int64)], [1], "floating-point"),
        ([np.ones(2)], [1, 1], "2 weights for 1 arrays"),
        ([np.ones(2)] * 3, [1, 1], "2 weights for 3 arrays"),
        ([np.ones(2)] * 2, [1, -1], "weight 1 is -1"),
        ([np.ones(2)] * 2, [1, np.inf], "weight 1 is inf"),
        ([np.ones(2)] * 2, [np.nan, 1], "weight 0 is nan"),
        ([np.ones(2)] * 2, [0, 0], "at least one above 0"),
        ([], [], "at least one above 0"),
    ],
)
def test_average_refuses(arrays: list, weights: list, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        average(arrays, weights)
