"""Who trains on what: seeded, disjoint shards of a labelled data set.

- `uniform`: equal sizes, no skew.
- `dirichlet`: class by class, a share q ~ Dir(α·1_workers) of its samples goes to each worker;
  every sample is dealt exactly once, sizes differ (Hsu et al., arXiv 1909.06335, and others).
- `skewed`: equal sizes, worker k's classes are drawn from q_k ~ Dir(α·1_classes), the skew of
  *A Single Merging Suffices* (arXiv 2507.06542, App. C.1), here without overlap.

The smaller α, the fewer classes a worker sees. A shard is a sorted array of indices (int64).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decent.errors import TaskError
from decent.schedule.streams import stream

Indices = NDArray[np.int64]
TRIES = 100


def uniform(samples: int, workers: int, seed: int) -> list[Indices]:
    """All of `samples` in `workers` shards whose sizes differ by at most one."""
    _check(workers, samples, 1)
    order = stream(seed, "shards", "uniform").permutation(samples)
    return [np.sort(part) for part in np.array_split(order, workers)]


def dirichlet(
    labels: ArrayLike, workers: int, alpha: float, seed: int, minimum: int = 8
) -> list[Indices]:
    """Every sample exactly once, split class by class; each worker gets `minimum` or more.

    A draw that leaves a worker short is drawn again; after `TRIES` the last one is evened out.
    """
    classes, samples = _classes(labels, alpha)
    _check(workers, samples, minimum)
    rng = stream(seed, "shards", "dirichlet")
    for _ in range(TRIES):
        shards = _deal(classes, workers, alpha, rng)
        if min(map(len, shards)) >= minimum:
            break
    else:
        _even_out(shards, minimum, rng)
    return [np.sort(shard) for shard in shards]


def skewed(labels: ArrayLike, workers: int, samples: int, alpha: float, seed: int) -> list[Indices]:
    """`samples` for each worker, disjoint; once a class is used up, the others fill in."""
    classes, available = _classes(labels, alpha)
    _check(workers, available, samples)
    rng = stream(seed, "shards", "skewed")
    stock = [list(rng.permutation(members)) for members in classes]
    shards = []
    for _ in range(workers):
        wanted = _dirichlet(rng, alpha, len(classes))
        shard: list[np.int64] = []
        while len(shard) < samples:
            counts = _draw(stock, wanted, samples - len(shard), rng)
            for pile, count in zip(stock, counts, strict=True):
                shard += [pile.pop() for _ in range(count)]
        shards.append(np.sort(np.array(shard, dtype=np.int64)))
    return shards


def _classes(labels: ArrayLike, alpha: float) -> tuple[list[Indices], int]:
    """The indices of each class, and how many there are in all."""
    values = np.asarray(labels)
    if values.ndim != 1:
        raise TaskError(f"labels of shape {values.shape}", "one label for each sample")
    if not (math.isfinite(alpha) and alpha > 0):
        raise TaskError(f"alpha = {alpha}", "a finite number above 0")
    return [np.flatnonzero(values == label) for label in np.unique(values)], len(values)


def _check(workers: int, samples: int, minimum: int) -> None:
    if workers < 1 or minimum < 0:
        raise TaskError(f"{workers} workers with {minimum} samples each", "1 or more, 0 or more")
    if workers * minimum > samples:
        raise TaskError(
            f"{workers} workers with {minimum} samples each out of {samples}",
            f"at most {samples} in all",
            f"use at most {samples // minimum} workers, or {samples // workers} samples each",
        )


def _dirichlet(rng: np.random.Generator, alpha: float, parts: int) -> NDArray[np.float64]:
    """A draw of Dir(α·1), which for vanishing α is one whole part (where numpy yields NaN)."""
    shares: NDArray[np.float64] = rng.dirichlet(np.full(parts, alpha))
    if not np.isfinite(shares).all():
        shares = np.zeros(parts)
        shares[rng.integers(parts)] = 1.0
    return shares


def _deal(
    classes: list[Indices], workers: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    parts: list[list[Indices]] = [[np.empty(0, dtype=np.int64)] for _ in range(workers)]
    for members in classes:
        cuts = np.cumsum(_dirichlet(rng, alpha, workers))[:-1] * len(members)
        pieces = np.split(rng.permutation(members), np.rint(cuts).astype(int))
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _even_out(shards: list[Indices], minimum: int, rng: np.random.Generator) -> None:
    """Move samples drawn at random from the largest shard to those below `minimum`."""
    for worker in range(len(shards)):
        while (lack := minimum - len(shards[worker])) > 0:
            largest = max(range(len(shards)), key=lambda k: len(shards[k]))
            pile = rng.permutation(shards[largest])
            count = min(lack, len(pile) - minimum)
            shards[largest], moved = pile[count:], pile[:count]
            shards[worker] = np.concatenate([shards[worker], moved])


def _draw(
    stock: list[list[np.int64]],
    wanted: NDArray[np.float64],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """How many of each class to take for `count` more samples, at most what is there."""
    left = np.array([len(pile) for pile in stock])
    shares = wanted * (left > 0)
    if shares.sum() <= 0:
        shares = left.astype(float)
    drawn = rng.multinomial(count, shares / shares.sum())
    return [int(n) for n in np.minimum(drawn, left)]
