"""Clusters: balanced within bounds, none empty, a pure function of the features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.errors import TaskError
from decent.experts import clusters


def blobs(count: int, centres: int, seed: int = 0, spread: float = 0.05) -> np.ndarray:
    draw = np.random.default_rng(seed)
    middles = draw.uniform(-5, 5, (centres, 3))
    noise = spread * draw.standard_normal((count, 3))
    return (middles[draw.integers(centres, size=count)] + noise).astype(np.float32)


def test_nearest_is_the_nearest() -> None:
    draw = np.random.default_rng(0)
    rows, centroids = draw.standard_normal((5000, 4)), draw.standard_normal((7, 4))
    found, squares = clusters.nearest(rows, centroids)
    distances = ((rows[:, None] - centroids) ** 2).sum(2)
    np.testing.assert_array_equal(found, distances.argmin(1))
    np.testing.assert_allclose(squares, distances.min(1), atol=1e-12)


def test_fine_clusters_are_used_and_the_same_again() -> None:
    rows = blobs(3000, 40)
    centroids = clusters.fine(rows, 64, seed=3)
    found, squares = clusters.nearest(rows, centroids)
    assert (np.bincount(found, minlength=64) > 0).all()
    assert len(centroids) == 64
    assert squares.mean() < 0.05  # of the blobs' own variance, 3 · 0.05²
    np.testing.assert_array_equal(centroids, clusters.fine(rows, 64, seed=3))


def test_empty_fine_clusters_are_seeded_again_or_go() -> None:
    rows = blobs(300, 10)
    far = np.full((5, 3), 1e3, np.float32)
    kept = clusters._reseeded(rows, np.concatenate([rows[:5], far]))
    assert len(kept) == 10
    assert np.abs(kept).max() < 10
    two = np.repeat(rows[:2], 50, 0)
    assert len(clusters.fine(two, 8, seed=0)) == 2


@settings(max_examples=20, deadline=None)
@given(
    st.integers(2, 8), st.floats(0.05, 1), st.integers(0, 2**31), st.booleans()
)  # fmt: skip
def test_groups_are_balanced_as_far_as_whole_clusters_allow(
    experts: int, balance: float, seed: int, skewed: bool
) -> None:
    draw = np.random.default_rng(seed)
    weights = draw.integers(0, 30, 12 * experts) ** (2 if skewed else 1)
    centroids = draw.standard_normal((12 * experts, 4)) * (5 if skewed else 1)
    groups = clusters.coarse(centroids, weights, experts, balance, seed)
    sizes = np.bincount(groups, weights, experts)
    even = weights.sum() / experts
    assert sizes.min() > 0
    assert sizes.max() <= even * (1 + balance) + weights.max()
    assert sizes.min() >= even / (1 + balance) - weights.max()
    np.testing.assert_array_equal(
        groups, clusters.coarse(centroids, weights, experts, balance, seed)
    )


def test_without_bounds_groups_are_the_blobs() -> None:
    draw = np.random.default_rng(1)
    truth = np.repeat(np.arange(4), [3, 10, 20, 7])
    centroids = 10 * np.eye(4)[truth] + 0.1 * draw.standard_normal((40, 4))
    groups = clusters.coarse(centroids, np.ones(40, int), 4, np.inf, seed=0)
    assert len({(a, b) for a, b in zip(truth, groups, strict=True)}) == 4
    bounded = clusters.coarse(centroids, np.ones(40, int), 4, 0.0, seed=0)
    np.testing.assert_array_equal(np.bincount(bounded), 10)


def test_one_group_and_as_many_groups_as_clusters() -> None:
    centroids = np.random.default_rng(0).standard_normal((6, 2))
    assert set(clusters.coarse(centroids, np.arange(1, 7), 1, 0.1, 0)) == {0}
    assert sorted(clusters.coarse(centroids, np.arange(1, 7), 6, 0.1, 0)) == list(range(6))


def test_too_many_clusters_are_refused() -> None:
    with pytest.raises(TaskError, match="31 fine centroids of 30 samples"):
        clusters.fine(blobs(30, 3), 31, seed=0)
    with pytest.raises(TaskError, match="2 different clusters of samples for 3 experts"):
        clusters.coarse(np.eye(3), np.array([4, 0, 2]), 3, 0.1, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 0.5))
def test_near_duplicates_stay_on_one_side(seed: int, share: float) -> None:
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((200, 6))
    copies = rows[:80] + 1e-3 * draw.standard_normal((80, 6))
    groups = clusters.alike(np.concatenate([rows, copies, rows[:40]]).astype(np.float32), 0.05)
    held = clusters.held_out(groups, share, seed)
    np.testing.assert_array_equal(held[:80], held[200:280])
    np.testing.assert_array_equal(held[:40], held[280:])
    assert share - 0.05 <= held.mean() <= share


def test_many_copies_of_one_sample_take_no_more_than_one() -> None:
    rows = np.concatenate([np.zeros((50_000, 2)), blobs(50, 5)[:, :2] + 9]).astype(np.float32)
    groups = clusters.alike(rows, 0.001)
    assert len(set(groups[:50_000])) == 1
    assert not set(groups[50_000:]) & {groups[0]}


def test_chains_of_near_duplicates_are_one_group() -> None:
    line = np.linspace(0, 1, 50)[:, None] * np.ones((1, 2))
    groups = clusters.alike(np.concatenate([line, line + 3]).astype(np.float32), 0.05)
    assert len(set(groups[:50])) == len(set(groups[50:])) == 1
    assert groups[0] != groups[50]
    assert not clusters.held_out(groups, 0.2, seed=0).any()
