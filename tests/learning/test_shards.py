"""Shards are disjoint, reproducible and as skewed as asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.errors import TaskError
from decent.learning.shards import dirichlet, skewed, uniform


def labels(samples: int, classes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, samples)


@given(
    st.integers(1, 12),
    st.integers(1, 10),
    st.sampled_from([1e-6, 0.05, 0.3, 1.0, 100.0]),
    st.integers(0, 50),
    st.integers(0, 300),
)
@settings(max_examples=60, deadline=None)
def test_dirichlet_deals_every_sample_once(
    workers: int, classes: int, alpha: float, seed: int, spare: int
) -> None:
    y = labels(workers * 8 + spare, classes, seed)
    shards = dirichlet(y, workers, alpha, seed)
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(len(y)))
    assert min(map(len, shards)) >= 8
    again = dirichlet(y, workers, alpha, seed)
    assert all(np.array_equal(a, b) for a, b in zip(shards, again, strict=True))


@given(st.integers(1, 8), st.sampled_from([1e-6, 0.1, 10.0]), st.integers(0, 50))
@settings(max_examples=40, deadline=None)
def test_skewed_shards_are_equal_in_size_and_disjoint(
    workers: int, alpha: float, seed: int
) -> None:
    y = labels(160, 4, seed)
    shards = skewed(y, workers, 20, alpha, seed)
    assert [len(shard) for shard in shards] == [20] * workers
    assert len(np.unique(np.concatenate(shards))) == 20 * workers


@given(st.integers(1, 9), st.integers(9, 100), st.integers(0, 9))
@settings(deadline=None)
def test_uniform_shards(workers: int, samples: int, seed: int) -> None:
    shards = uniform(samples, workers, seed)
    assert np.array_equal(np.sort(np.concatenate(shards)), np.arange(samples))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_small_alpha_means_few_classes() -> None:
    y = labels(4000, 10)
    for split in (lambda a: dirichlet(y, 8, a, 1), lambda a: skewed(y, 8, 100, a, 1)):
        seen = [
            np.mean([np.bincount(y[s]).max() / len(s) for s in split(a)]) for a in (0.05, 100.0)
        ]
        assert seen[0] > 0.5 > 0.2 > seen[1]


def test_seeds_and_only_seeds_change_shards() -> None:
    y = labels(400, 5)
    one, two = dirichlet(y, 4, 0.5, 1), dirichlet(y, 4, 0.5, 2)
    assert any(not np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_cannot_be_split_says_what_can() -> None:
    with pytest.raises(TaskError, match=r"9 workers .* out of 70.*at most 8 workers"):
        dirichlet(labels(70, 3), 9, 0.1, 0)
    with pytest.raises(TaskError, match="10 samples each"):
        skewed(labels(50, 3), 5, 11, 0.1, 0)
    with pytest.raises(TaskError, match="0 workers"):
        uniform(10, 0, 0)
    for alpha in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(TaskError, match="alpha"):
            dirichlet(labels(50, 3), 2, alpha, 0)
    with pytest.raises(TaskError, match="one label"):
        dirichlet(np.zeros((5, 2)), 2, 1.0, 0)
