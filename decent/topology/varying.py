"""Topologies that change with time: who may talk in round k = 0, 1, 2, …

A round has a mixing matrix W[n, n], float64, doubly stochastic: in it worker i's vector becomes
Σ_j W_ij x_j. Over undirected edges these are Metropolis–Hastings weights,

    W_ij = 1/(1 + max(deg_i, deg_j)) on edges,   W_ii = 1 − Σ_j W_ij,

so ½ for a pair that has no other peers. The one-peer exponential graph is directed: in round k
worker i takes in i − 2^(k mod ⌈log₂ n⌉) with weight ½, W = (I + P^(2^k))/2 for the cyclic shift P;
where n is a power of two, the product of log₂ n rounds in a row is exactly 11ᵀ/n.

An exchange is one vector each way over an edge, so a vector one way is half an exchange. Rounds may
be asked for in any order, and are the same each time.

Sources: Xiao, Boyd and Lall, "A scheme for robust distributed sensor fusion based on average
consensus", IPSN 2005 (weights); Ying, Yuan, Chen, Hu, Pan and Yin, "Exponential Graph is Provably
Efficient for Decentralized Deep Training", NeurIPS 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from decent.errors import TopologyError
from decent.topology.edges import Edge, Pairs, as_edges, as_pairs, check_edges, connected
from decent.topology.graph import Topology

Matrix = NDArray[np.float64]
Edges = Iterable[Edge] | Pairs


def metropolis(n: int, edges: Edges) -> Matrix:
    """Metropolis–Hastings weights of n workers over undirected `edges`: symmetric and doubly
    stochastic, shape [n, n]."""
    pairs = as_pairs(edges)
    i, j = pairs.T
    degrees = np.bincount(pairs.ravel(), minlength=n)
    weights = np.zeros((n, n))
    weights[i, j] = weights[j, i] = 1 / (1 + np.maximum(degrees[i], degrees[j]))
    weights[np.diag_indices(n)] = 1 - weights.sum(axis=1)
    return weights


class Varying:
    """Who may talk in each round; `edges_of(k)` are the edges of round k, in any order and
    direction, checked when the round is asked for."""

    def __init__(self, n: int, name: str, edges_of: Callable[[int], Edges]) -> None:
        if n < 1:
            raise TopologyError(f"{n} workers", "1 or more", "give the number of workers")
        self.n, self.name = n, name
        self._edges_of = edges_of

    def edges(self, k: int) -> tuple[Edge, ...]:
        """Who may talk in round k, whatever the direction: (i, j), i < j, sorted."""
        return as_edges(self._pairs(k))

    def exchanges(self, k: int) -> float:
        """How many exchanges round k takes, a vector each way counted as one."""
        return float(len(self._pairs(k)))

    def weights(self, k: int) -> Matrix:
        """W of round k, doubly stochastic, shape [n, n]."""
        return metropolis(self.n, self._pairs(k))

    def _pairs(self, k: int) -> Pairs:
        if k < 0:
            raise TopologyError(f"round {k}", "0 or more", "rounds count from 0")
        try:
            return _checked(self.n, self._edges_of(k))
        except TopologyError as error:
            raise TopologyError(f"round {k}: {error.given}", error.expected, error.remedy) from None


def _checked(n: int, edges: Edges) -> Pairs:
    """The edges sorted, each (i, j) with i < j; TopologyError if they are none."""
    try:
        pairs = np.sort(as_pairs(edges), axis=1)
    except (TypeError, ValueError) as error:
        raise TopologyError(
            f"{edges!r}", "edges, pairs of workers", "give a list such as [(0, 1), (2, 3)]"
        ) from error
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    check_edges(n, pairs)
    return pairs


def static(topology: Topology) -> Varying:
    """The topology's edges of rate > 0 in every round, whatever their rates."""
    live = as_pairs(topology.edges)[np.asarray(topology.rates) > 0]
    return Varying(topology.n, topology.family, lambda k: live)


def sequence(n: int, edge_sets: Sequence[Edges]) -> Varying:
    """These edge sets in turn, over and over; all of them together must connect the workers."""
    if not edge_sets:
        raise TopologyError("no edge sets", "one or more", "give a list of the edges of each round")
    given = Varying(n, "sequence", lambda k: edge_sets[k])
    rounds = [given._pairs(k) for k in range(len(edge_sets))]
    if not connected(n, np.concatenate(rounds)):
        raise TopologyError(
            f"{len(edge_sets)} edge sets that leave workers apart",
            "workers connected by all rounds together",
            "add an edge to one of the rounds",
        )
    return Varying(n, "sequence", lambda k: rounds[k % len(rounds)])


def generated(n: int, rounds: Callable[[int], Edges] | Iterator[Edges]) -> Varying:
    """The edges that a function gives for round k, or an iterator for one round after the other;
    what an iterator has given is kept."""
    if callable(rounds):
        return Varying(n, "generated", rounds)
    given: list[Pairs] = []

    def edges_of(k: int) -> Pairs:
        for edges in rounds if k >= len(given) else ():
            given.append(_checked(n, edges))
            if len(given) > k:
                break
        if k >= len(given):
            raise TopologyError(
                f"the iterator ended after {len(given)} rounds",
                "edges for every round",
                "use an endless iterator, such as itertools.cycle",
            )
        return given[k]

    return Varying(n, "generated", edges_of)


def random_matching(n: int, seed: int = 0) -> Varying:
    """In each round everyone has one peer, drawn at random; of an odd number one sits out."""
    if seed < 0:
        raise TopologyError(f"seed {seed}", "0 or more", "give another seed")

    def edges_of(k: int) -> Pairs:
        order = np.random.default_rng((seed, k)).permutation(n)
        return as_pairs(order[: n - n % 2])

    return Varying(n, "random_matching", edges_of)


def one_peer_exponential(n: int) -> Varying:
    """In round k worker i takes in i − 2^(k mod ⌈log₂ n⌉), and is taken in by another."""
    return _OnePeerExponential(n)


class _OnePeerExponential(Varying):
    def __init__(self, n: int) -> None:
        super().__init__(n, "one_peer_exponential", self._both_ways)

    def _sender(self, k: int) -> Pairs:
        """Whom each worker takes in; nobody but itself if it is alone."""
        hop = 1 << (k % max(1, (self.n - 1).bit_length()))
        return (np.arange(self.n) - hop) % self.n

    def _both_ways(self, k: int) -> Pairs:
        """The pairs that talk; two that take in one another are one pair."""
        pairs = np.sort(np.stack([self._sender(k), np.arange(self.n)], axis=1), axis=1)
        return np.unique(pairs[pairs[:, 0] < pairs[:, 1]], axis=0)

    def exchanges(self, k: int) -> float:
        return self.n / 2 if self.n > 1 else 0.0

    def weights(self, k: int) -> Matrix:
        weights = np.eye(self.n) / 2
        weights[np.arange(self.n), self._sender(k)] += 0.5
        return weights
