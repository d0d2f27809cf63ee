"""Who may talk to whom, and how often: workers, undirected edges and a rate for each edge.

A rate is a number of exchanges per unit of time; one unit of time is the expected duration of one
local gradient step. Beside the rates a topology may carry what a file knows of its workers and
links (names, addresses, public keys, latency in seconds one way, bandwidth in bits per second), so
that the same object drives the simulator and a real run. It is immutable, and valid once built:
simple, connected over the edges that have a rate, every figure finite.

Equations and source of χ₁ and χ₂: see `spectrum`; large graphs with few edges are never made a
dense matrix, see `sparse`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from decent.errors import TopologyError
from decent.keys import is_key
from decent.topology import sparse, spectrum
from decent.topology.edges import Edge, Pairs, as_edges, as_pairs, check_edges, groups
from decent.topology.spectrum import Matrix

LARGEST_DENSE = 1000
"""Workers up to which a dense matrix is the fastest there is."""


@dataclass(frozen=True)
class Link:
    """What an edge's link can do: one-way latency in seconds, bandwidth in bits per second
    (None: unlimited)."""

    latency_s: float
    bandwidth_bps: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise TopologyError(
                f"latency_s = {self.latency_s}",
                "a finite number of seconds, 0 or more",
                "give the one-way latency, half of the round trip",
            )
        if self.bandwidth_bps is not None and not self.bandwidth_bps > 0:
            raise TopologyError(
                f"bandwidth_bps = {self.bandwidth_bps}",
                "more than 0 bits per second",
                "leave it out for a link without limit",
            )


@dataclass(frozen=True)
class Topology:
    """`n` workers and `edges` (i, j), i < j, sorted; `rates` and `links` follow the edges, `names`,
    `addresses`, `regions` and public `keys` (for all or none) the workers. `source` says where the
    figures come from."""

    n: int
    edges: tuple[Edge, ...]
    rates: tuple[float, ...]
    family: str = "custom"
    names: tuple[str, ...] | None = None
    addresses: tuple[str | None, ...] | None = None
    links: tuple[Link, ...] | None = None
    source: str = ""
    regions: tuple[str | None, ...] | None = None
    keys: tuple[str, ...] | None = None

    @classmethod
    def from_edges(
        cls,
        n: int,
        edges: Iterable[Edge] | Pairs,
        rates: float | Sequence[float] = 1.0,
        links: Sequence[Link] | None = None,
        **fields: Any,
    ) -> Topology:
        """A topology from edges in any order and direction; `rates` and `links` follow them."""
        pairs = np.sort(as_pairs(edges), axis=1)
        if isinstance(rates, (int, float)):
            rates = np.full(len(pairs), rates, np.float64).tolist()
        _check_length("rates", rates, len(pairs), "edge")
        if links is not None:
            _check_length("links", links, len(pairs), "edge")
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        return cls(
            n,
            as_edges(pairs[order]),
            tuple(np.asarray(rates, np.float64)[order].tolist()),
            links=None if links is None else tuple(links[k] for k in order.tolist()),
            **fields,
        )

    def __post_init__(self) -> None:
        if self.n < 1:
            raise TopologyError(f"{self.n} workers", "1 or more", "give the number of workers")
        pairs = as_pairs(self.edges)
        check_edges(self.n, pairs)
        for name, each, count, kind in (
            ("rates", self.rates, len(self.edges), "edge"),
            ("links", self.links, len(self.edges), "edge"),
            ("names", self.names, self.n, "worker"),
            ("addresses", self.addresses, self.n, "worker"),
            ("regions", self.regions, self.n, "worker"),
            ("keys", self.keys, self.n, "worker"),
        ):
            if each is not None:
                _check_length(name, each, count, kind)
        _check_rates(self.edges, self.rates)
        _check_names(self.names)
        _check_keys(self)
        _check_connected(self, pairs)

    def name(self, i: int) -> str:
        """Worker i's name, or its number where it has none."""
        return self.names[i] if self.names else str(i)

    def neighbours(self, i: int) -> dict[int, float]:
        """Rate of the edge to each peer of worker i, peers in ascending order."""
        if not 0 <= i < self.n:
            raise TopologyError(
                f"worker {i}",
                f"a worker of this topology, 0 to {self.n - 1}",
                "workers count from 0",
            )
        return dict(self._adjacency[i])

    @cached_property
    def _adjacency(self) -> tuple[dict[int, float], ...]:
        peers: tuple[dict[int, float], ...] = tuple({} for _ in range(self.n))
        for (i, j), rate in zip(self.edges, self.rates, strict=True):
            peers[i][j] = peers[j][i] = rate
        return peers  # in ascending order, since edges are

    @cached_property
    def edge_index(self) -> dict[Edge, int]:
        """Position in `edges`, `rates` and `links` of each edge (i, j), i < j."""
        return {edge: k for k, edge in enumerate(self.edges)}

    @cached_property
    def _laplacian(self) -> Matrix:
        matrix = np.zeros((self.n, self.n))
        if self.edges:
            i, j = as_pairs(self.edges).T
            matrix[i, j] = matrix[j, i] = np.negative(self.rates)
        np.fill_diagonal(matrix, -matrix.sum(axis=1))
        matrix.flags.writeable = False
        return matrix

    def laplacian(self) -> Matrix:
        """Λ = Σ_edges rate_e (e_i − e_j)(e_i − e_j)ᵀ, n × n, per unit of time; read-only."""
        return self._laplacian

    @property
    def _is_dense(self) -> bool:
        """Whether n × n numbers are few, or not many more than the edges."""
        return self.n <= LARGEST_DENSE or len(self.edges) > self.n**2 / 16

    @cached_property
    def spectral_gap(self) -> float:
        """λ₂(Λ) per unit of time; infinite for one worker."""
        if self._is_dense:
            return spectrum.spectral_gap(self._laplacian)
        return sparse.spectral_gap(self.n, *self._live)

    @cached_property
    def chi_1(self) -> float:
        """χ₁ = 1/λ₂(Λ), in units of time; 0 for one worker."""
        return 1.0 / self.spectral_gap if self.spectral_gap > 0 else math.inf

    @cached_property
    def chi_2(self) -> float:
        """χ₂ = max over edges of ½ (e_i − e_j)ᵀ Λ⁺ (e_i − e_j), units of time; 0 for one worker."""
        if self._is_dense:
            return spectrum.chi_2(self._laplacian, self._live[0])
        return sparse.chi_2(self.n, *self._live)

    @property
    def _live(self) -> tuple[tuple[Edge, ...], tuple[float, ...]]:
        """The edges of rate > 0, and their rates."""
        live = [each for each in zip(self.edges, self.rates, strict=True) if each[1] > 0]
        return tuple(edge for edge, _ in live), tuple(rate for _, rate in live)

    def models_per_worker(self) -> float:
        """Models that a worker sends per unit of time, expected, mean over workers: each exchange
        sends one model each way, so 2·Σ rates / n."""
        return 2 * math.fsum(self.rates) / self.n

    def with_rates(self, rates: Sequence[float]) -> Topology:
        """The same graph at other rates, one for each edge."""
        return replace(self, rates=tuple(float(rate) for rate in rates))

    def with_models_per_worker(self, rate: float) -> Topology:
        """The same graph with all rates scaled in proportion so that a worker sends `rate` models
        per unit of time on average. One worker alone has nobody to send to and stays as it is."""
        if not (math.isfinite(rate) and rate > 0):
            raise TopologyError(
                f"models_per_worker = {rate}",
                "a finite number greater than 0",
                "1 sends one model per local step; to stop talking, use a schedule that does",
            )
        scale = rate / self.models_per_worker() if self.edges else 1.0
        return self.with_rates([scale * each for each in self.rates])


def _check_length(name: str, each: Collection[object], count: int, kind: str) -> None:
    if len(each) != count:
        raise TopologyError(
            f"{name} has {len(each)} entries",
            f"{count}, one for each {kind}",
            f"give one entry for each {kind}, in their order",
        )


def _check_rates(edges: Sequence[Edge], rates: Sequence[float]) -> None:
    figures = np.asarray(rates, np.float64)
    wrong = ~(np.isfinite(figures) & (figures >= 0))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise TopologyError(
            f"rate {rates[k]} of edge {edges[k]}",
            "a finite number of exchanges per unit of time, 0 or more",
            "0 keeps an edge silent",
        )


def _check_names(names: Sequence[str] | None) -> None:
    twice = [name for name, count in Counter(names or ()).items() if count > 1]
    if twice:
        raise TopologyError(
            f"worker name {twice[0]!r} is given twice", "a name of its own for each", "rename one"
        )


def _check_keys(topology: Topology) -> None:
    """Keys of workers who share one could not be told apart; one without could not take part."""
    found: dict[str, int] = {}
    for i, key in enumerate(topology.keys or ()):
        if key is None:
            raise TopologyError(
                f"worker {topology.name(i)} has no key",
                "a key for all workers or none",
                "add its key",
            )
        if not is_key(key):
            raise TopologyError(
                f"the key of worker {topology.name(i)} is none",
                "a public key, 40 characters as in NAME.pub",
                "make one with `decent keygen`",
            )
        if found.setdefault(key, i) != i:
            raise TopologyError(
                f"workers {topology.name(found[key])} and {topology.name(i)} have the same key",
                "a key of its own for each",
                "make another with `decent keygen`",
            )


def _check_connected(topology: Topology, pairs: Pairs) -> None:
    live = pairs[np.asarray(topology.rates) > 0]
    lost = [topology.name(i) for i in np.flatnonzero(groups(topology.n, live)).tolist()]
    if lost:
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        workers = f"worker{'s' * (len(lost) > 1)} {', '.join(lost[:8])}{more}"
        raise TopologyError(
            f"{workers} cannot be reached from worker {topology.name(0)}",
            "a graph connected over its edges of rate > 0",
            f"add an edge with a rate towards {lost[0]}",
        )
