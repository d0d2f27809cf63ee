"""From features to clusters: many fine centroids, then K balanced groups of them.

Fine: mini-batch k-means (Sculley, WWW 2010) over features [n, d], F centroids; one that no sample
is nearest to is put on the sample that is farthest from its own. Coarse: k-means over the F
centroids, weighted by their samples, under bounds on the samples n_k of a group,

    min Σ_f w_f |c_f − m_{g(f)}|²    with    n_k = Σ_{f: g(f) = k} w_f,
                                             1/(1 + balance) ≤ n_k·K/n ≤ 1 + balance,

where the centroids with most to lose choose first, groups that are too small take what costs least,
and centroids move while that shortens the sum: a local minimum, the best of some starts. A sample
belongs to the group of its nearest fine centroid, a pure function of features and centroids: what
the bounds say of the fit they say of the samples too, as far as whole fine clusters allow.
As in MoDE (Ma et al., CVPR 2024) and decentralized diffusion (arXiv 2501.05450); there a sample
goes to the nearest coarse centroid, and the sizes are what they come to be.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, MiniBatchKMeans, kmeans_plusplus

from decent.errors import TaskError
from decent.schedule import stream

CHUNK = 4096  # samples looked at together
RESTARTS, ROUNDS, MOVES = 4, 30, 20
RESEEDS = 10
Rows = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]


class Bounds(NamedTuple):
    """Of the samples of a group."""

    least: float
    most: float


def nearest(features: Rows, centroids: Rows) -> tuple[Indices, NDArray[np.float64]]:
    """The nearest of the centroids [F, d] to each row [n, d], and the squared distance [n]."""
    wide = centroids.astype(np.float64)
    found, squares = np.empty(len(features), np.int64), np.empty(len(features))
    for start in range(0, len(features), CHUNK):
        part = np.asarray(features[start : start + CHUNK], np.float64)
        distances = _squares(part, wide)
        found[start : start + CHUNK] = distances.argmin(1)
        squares[start : start + CHUNK] = distances.min(1)
    return found, squares


def fine(features: Rows, count: int, seed: int) -> NDArray[np.float32]:
    """Up to `count` centroids [F, d], none without samples; fewer where rows are alike.

    Raises TaskError if there are fewer rows than that.
    """
    if count > len(features):
        raise TaskError(
            f"{count} fine centroids of {len(features)} samples",
            "no more centroids than samples",
            f"set partition.fine = {len(features) // 4 or 1} or less",
        )
    model = MiniBatchKMeans(
        count, batch_size=CHUNK, n_init=3, compute_labels=False, reassignment_ratio=0.0,
        random_state=int(stream(seed, "fine").integers(2**31)),
    )  # fmt: skip
    return _reseeded(features, model.fit(features).cluster_centers_.astype(np.float32))


def _reseeded(features: Rows, centroids: NDArray[np.float32]) -> NDArray[np.float32]:
    """Empty clusters put on the samples farthest from their centroids; still empty ones go."""
    for _ in range(RESEEDS):
        found, squares = nearest(features, centroids)
        empty = np.flatnonzero(np.bincount(found, minlength=len(centroids)) == 0)
        if not len(empty):
            return centroids
        centroids[empty] = features[np.argsort(squares, kind="stable")[::-1][: len(empty)]]
    used: NDArray[np.float32] = centroids[np.unique(nearest(features, centroids)[0])]
    return used


def coarse(
    centroids: Rows, weights: NDArray[Any], experts: int, balance: float, seed: int
) -> Indices:
    """The group of each fine centroid [F], out of K, none without samples.

    `weights` [F] are samples; raises TaskError if fewer than K of them are above 0.
    """
    if (there := int((weights > 0).sum())) < experts:
        raise TaskError(
            f"{there} different clusters of samples for {experts} experts",
            "at least as many clusters as experts",
            "set partition.experts lower, or partition.fine higher",
        )
    points, mass = centroids.astype(np.float64), weights.astype(np.float64)
    even = mass.sum() / experts
    bounds = Bounds(max(even / (1 + balance), 1), even * (1 + balance))
    draws = [stream(seed, "coarse", k).integers(2**31) for k in range(RESTARTS)]
    tries = [_grouped(points, mass, experts, bounds, int(draw)) for draw in draws]
    return min(tries, key=lambda groups: _cost(points, mass, groups, experts, bounds))


def _cost(
    points: Rows, mass: Rows, groups: Indices, experts: int, bounds: Bounds
) -> tuple[float, float]:
    """What is out of bounds, then the weighted sum of squares."""
    sizes = np.bincount(groups, mass, experts)
    squares = _squares(points, _means(points, mass, groups, experts))
    spread = float(mass @ squares[np.arange(len(points)), groups])
    return float(np.abs(sizes - sizes.clip(bounds.least, bounds.most)).sum()), spread


def _grouped(points: Rows, mass: Rows, experts: int, bounds: Bounds, seed: int) -> Indices:
    """Lloyd's rounds within the bounds, until nothing changes."""
    means, _ = kmeans_plusplus(points, experts, sample_weight=mass, random_state=seed)
    groups = np.full(len(points), -1)
    for _ in range(ROUNDS):
        before, squares = groups, _squares(points, means)
        groups = _choose(squares, mass, bounds)
        _fill(squares, mass, groups, bounds)
        _move(squares, mass, groups, bounds)
        if (before == groups).all():
            break
        means = _means(points, mass, groups, experts)
    return groups


def _choose(squares: Rows, mass: Rows, bounds: Bounds) -> Indices:
    """A group to each point [F] of squares [F, K]: the nearest one with room, or the smallest."""
    count, experts = squares.shape
    ordered = np.sort(squares, 1)
    stakes = mass * (ordered[:, min(1, experts - 1)] - ordered[:, 0])
    sizes, groups = np.zeros(experts), np.empty(count, np.int64)
    for f in np.lexsort((-mass, -stakes)):
        fits = sizes + mass[f] <= bounds.most
        costs = np.where(fits, squares[f], np.inf) if fits.any() else sizes
        groups[f] = costs.argmin()
        sizes[groups[f]] += mass[f]
    return groups


def _fill(squares: Rows, mass: Rows, groups: Indices, bounds: Bounds) -> None:
    """Groups that are too small, or empty, take points of others that can spare them."""
    count, experts = squares.shape
    for _ in range(count):
        sizes = np.bincount(groups, mass, experts)
        k = int(sizes.argmin())
        spare = (
            (groups != k) & (mass > 0) & (sizes[groups] - mass >= min(bounds.least, sizes[k] + 1))
        )
        if sizes[k] >= bounds.least or not spare.any():
            break
        costs = mass * (squares[:, k] - squares[np.arange(count), groups])
        groups[np.where(spare, costs, np.inf).argmin()] = k


def _move(squares: Rows, mass: Rows, groups: Indices, bounds: Bounds) -> None:
    """Points go where it is nearer, if both groups stay in bounds, until none can."""
    sizes = np.bincount(groups, mass, squares.shape[1])
    for _ in range(MOVES):
        moved = False
        for f, here in enumerate(groups):
            fits = sizes + mass[f] <= bounds.most
            fits &= sizes[here] - mass[f] >= bounds.least
            fits[here] = True
            there = np.where(fits, squares[f], np.inf).argmin()
            if there != here:
                sizes[[here, there]] += -mass[f], mass[f]
                groups[f], moved = there, True
        if not moved:
            break


def _means(points: Rows, mass: Rows, groups: Indices, experts: int) -> NDArray[np.float64]:
    """Weighted means [K, d]."""
    belongs = (groups == np.arange(experts)[:, None]) * mass
    means: NDArray[np.float64] = belongs @ points / belongs.sum(1, keepdims=True).clip(min=1e-300)
    return means


def centres(
    centroids: Rows, weights: NDArray[Any], groups: Indices, experts: int
) -> NDArray[np.float32]:
    """The weighted mean [K, d] of each group's fine centroids."""
    wide = _means(centroids.astype(np.float64), weights.astype(np.float64), groups, experts)
    return wide.astype(np.float32)


def alike(features: Rows, share: float) -> Indices:
    """Groups [n] of near-duplicates: rows that a chain of steps joins, each shorter than `share`
    of the features' spread, √E|f − E f|². These are wholly on one side of any split. Alone here
    the features are held in memory; rows that are the same are looked at once."""
    mean = np.mean(features, 0, dtype=np.float64)
    parts = (features[at : at + CHUNK] - mean for at in range(0, len(features), CHUNK))
    spread = float(np.sqrt(sum(float(np.vdot(part, part)) for part in parts) / len(features)))
    reach = max(share * spread, np.finfo(np.float32).tiny)
    rows, which = np.unique(features, axis=0, return_inverse=True)
    labels = DBSCAN(eps=reach, min_samples=1, algorithm="kd_tree").fit(rows).labels_
    groups: Indices = labels[which.reshape(-1)].astype(np.int64)
    return groups


def held_out(groups: Indices, share: float, seed: int) -> NDArray[np.bool_]:
    """Whether each sample [n] is held out: whole groups, drawn in random order, up to `share`."""
    order = stream(seed, "validation").permutation(int(groups.max()) + 1)
    sizes = np.bincount(groups)
    left, chosen = int(share * len(groups)), np.zeros(len(sizes), bool)
    for group in order:
        if sizes[group] <= left:
            chosen[group] = True
            left -= sizes[group]
    held: NDArray[np.bool_] = chosen[groups]
    return held


def _squares(points: Rows, centroids: Rows) -> NDArray[np.float64]:
    """Squared distances [n, F], never below 0."""
    products = points @ centroids.T
    squares = (points**2).sum(1)[:, None] - 2 * products + (centroids**2).sum(1)
    return np.asarray(squares.clip(min=0), np.float64)
