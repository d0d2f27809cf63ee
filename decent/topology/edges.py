"""Edges as an array of pairs, and what has to be true of them. Whole arrays at a time: a complete
graph of 2,000 workers has two million edges.

A pair is (i, j) of workers counted from 0; `Pairs` has the shape [edges, 2] and the order of the
edges. Nothing here has units.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from decent.errors import TopologyError

Edge = tuple[int, int]
Pairs = NDArray[np.int64]


def as_pairs(edges: Iterable[Edge] | Pairs) -> Pairs:
    """The edges as they are given, shape [edges, 2]; TopologyError where one has not two ends."""
    if isinstance(edges, np.ndarray):
        return edges.astype(np.int64, copy=False).reshape(-1, 2)
    listed = edges if isinstance(edges, (list, tuple)) else list(edges)
    if set(map(len, listed)) - {2}:
        odd = next(edge for edge in listed if len(edge) != 2)
        raise TopologyError(f"edge {odd}", "two workers", "give the numbers of both ends")
    try:
        flat = np.fromiter(chain.from_iterable(listed), np.int64, 2 * len(listed))
    except OverflowError as error:
        raise TopologyError(
            f"an edge whose end is no worker's number ({error})",
            "numbers of workers",
            "workers count from 0",
        ) from error
    return flat.reshape(-1, 2)


def as_edges(pairs: Pairs) -> tuple[Edge, ...]:
    """The rows of `pairs` as tuples of int."""
    i, j = pairs.T.tolist()
    return tuple(zip(i, j, strict=True))


def without_repeats(n: int, edges: Iterable[Edge]) -> Pairs:
    """Each edge of `n` workers once, (i, j) with i ≤ j, sorted, whatever the order given."""
    i, j = np.sort(as_pairs(edges), axis=1).T
    keys = np.sort(i * n + j)
    return np.stack(np.divmod(keys[np.diff(keys, prepend=-1) > 0], n), axis=1)


def check_edges(n: int, pairs: Pairs) -> None:
    """Refuse, by TopologyError, pairs that are not the sorted edges of a simple graph of n."""
    _check_ends(n, pairs)
    i, j = pairs.T
    steps = np.diff(i * n + j)
    if (i > j).any() or (steps < 0).any():
        raise TopologyError(
            "edges out of order",
            "each (i, j) with i < j, and all sorted",
            "use Topology.from_edges",
        )
    if not steps.all():
        edge = as_edges(pairs)[int(np.argmin(steps))]
        raise TopologyError(
            f"edge {edge} is given twice", "each edge once", "add the two rates into one edge"
        )


def _check_ends(n: int, pairs: Pairs) -> None:
    outside: NDArray[np.bool_] = np.any((pairs < 0) | (pairs >= n), axis=1)
    wrong = outside | (pairs[:, 0] == pairs[:, 1])
    if not wrong.any():
        return
    k = int(np.argmax(wrong))
    edge = tuple(pairs[k].tolist())
    if outside[k]:
        raise TopologyError(
            f"edge {edge}", f"endpoints from 0 to {n - 1}", f"there are {n} workers: count from 0"
        )
    raise TopologyError(
        f"edge {edge}", "two different workers", "remove the edge from a worker to itself"
    )


def groups(n: int, pairs: Pairs) -> Pairs:
    """For each of n workers the lowest that it hangs together with by these edges, shape [n].

    In each round the lower group of an edge's two takes over the other, and every worker follows
    its group's head to the end, so that a handful of rounds is enough on any graph.
    """
    head = np.arange(n)
    while True:
        ends = head[pairs]
        low = ends.min(axis=1, initial=n)
        np.minimum.at(head, ends[:, 0], low)
        np.minimum.at(head, ends[:, 1], low)
        while (head[head] != head).any():
            head = head[head]
        if (ends[:, 0] == ends[:, 1]).all():
            return head


def connected(n: int, edges: Iterable[Edge] | Pairs) -> bool:
    """Whether n workers hang together by these edges."""
    return not groups(n, as_pairs(edges)).any()
