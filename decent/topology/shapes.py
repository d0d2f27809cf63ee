"""The edges of each family of graphs, as `families.family` names them. Workers count from 0.

A shape is a function from n, and its own options, to its edges, in any order and with repetitions;
the first line of its docstring is what `families()` shows. Random shapes take a generator as well,
and may come out disconnected. Conventions are those of the literature on gossip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from decent.errors import TopologyError
from decent.topology.edges import Edge

Option = float | int
Random = np.random.Generator


def _require_size(name: str, n: int, possible: Callable[[int], bool], rule: str) -> None:
    """Refuse an impossible n, naming the possible sizes next to it."""
    if possible(n):
        return
    below = next((size for size in range(n - 1, 0, -1) if possible(size)), None)
    above = next(size for size in range(n + 1, 2 * n + 16) if possible(size))
    nearest = f"{above} workers" if below is None else f"{below} or {above} workers"
    raise TopologyError(f"{name} of {n} workers", rule, f"the nearest possible: {nearest}")


def _require_option(name: str, key: str, value: Option, fits: bool, rule: str) -> None:
    if not fits:
        raise TopologyError(f"option {key} = {value} of the {name} family", rule, f"change {key}")


def _pair(i: int, j: int) -> Edge:
    return (i, j) if i < j else (j, i)


def ring(n: int) -> Iterable[Edge]:
    """each worker with the next, the last with the first"""
    return (_pair(i, (i + 1) % n) for i in range(n) if n > 1)


def line(n: int) -> Iterable[Edge]:
    """each worker with the next"""
    return ((i, i + 1) for i in range(n - 1))


def star(n: int) -> Iterable[Edge]:
    """worker 0 with every other"""
    return ((0, i) for i in range(1, n))


def complete(n: int) -> Iterable[Edge]:
    """every worker with every other"""
    return combinations(range(n), 2)


def _columns(name: str, n: int, shortest: int) -> int:
    """The columns of n = rows × columns, as square as can be, each side at least `shortest`."""

    def rows(size: int) -> int:
        sides = range(math.isqrt(size), shortest - 1, -1)
        return next((side for side in sides if size % side == 0), 0)

    rule = f"rows × columns, each side at least {shortest}"
    _require_size(name, n, lambda size: rows(size) > 0, rule)
    return n // rows(n)


def grid(n: int) -> Iterable[Edge]:
    """rows × columns as square as can be, at least 2 × 2, each worker with those beside it"""
    columns = _columns("grid", n, shortest=2)
    across = ((i, i + 1) for i in range(n) if (i + 1) % columns)
    return [*across, *((i, i + columns) for i in range(n - columns))]


def torus(n: int) -> Iterable[Edge]:
    """a grid of at least 3 × 3 whose opposite borders meet"""
    columns = _columns("torus", n, shortest=3)
    across = (_pair(i, i - i % columns + (i + 1) % columns) for i in range(n))
    return [*across, *(_pair(i, (i + columns) % n) for i in range(n))]


def hypercube(n: int) -> Iterable[Edge]:
    """workers whose binary numbers differ in one digit; n a power of two"""
    _require_size("hypercube", n, lambda size: size & (size - 1) == 0, "a power of two")
    bits = [1 << k for k in range(n.bit_length() - 1)]
    return ((i, i | bit) for i in range(n) for bit in bits if not i & bit)


def exponential(n: int) -> Iterable[Edge]:
    """worker i with i + 1, i + 2, i + 4, … around a ring"""
    chords = [1 << k for k in range((n - 1).bit_length())]
    return (_pair(i, (i + chord) % n) for i in range(n) for chord in chords)


def barbell(n: int) -> Iterable[Edge]:
    """two cliques of n/2 joined by one edge"""
    _require_size("barbell", n, lambda size: size >= 4 and size % 2 == 0, "an even number from 4")
    half = n // 2
    cliques = [*combinations(range(half), 2), *combinations(range(half, n), 2)]
    return [*cliques, (half - 1, half)]


def lollipop(n: int, clique: int = 0) -> Iterable[Edge]:
    """a clique (of `clique` workers, half of them by default) with the others in line behind it"""
    clique = clique or (n + 1) // 2
    fits = clique in range(1, n + 1)
    _require_option("lollipop", "clique", clique, fits, f"a whole number from 1 to {n}")
    return [*combinations(range(clique), 2), *((i, i + 1) for i in range(clique - 1, n - 1))]


def tree(n: int) -> Iterable[Edge]:
    """balanced binary: worker i with 2i + 1 and 2i + 2"""
    return (((i - 1) // 2, i) for i in range(1, n))


def erdos_renyi(n: int, random: Random, p: float | None = None) -> Iterable[Edge]:
    """each pair with probability `p`, by default 2·ln n / n, twice the connectedness threshold"""
    p = min(1.0, 2 * math.log(n) / n) if p is None else p
    _require_option("erdos_renyi", "p", p, 0 <= p <= 1, "a probability, 0 to 1")
    return _pairs_where(random.random(n) < p for _ in range(n))


def random_geometric(n: int, random: Random, radius: float | None = None) -> Iterable[Edge]:
    """points of the unit square nearer than `radius`, by default √(2·ln n / (π·n))"""
    radius = math.sqrt(2 * math.log(n) / (math.pi * n)) if radius is None else radius
    _require_option("random_geometric", "radius", radius, radius >= 0, "a distance, 0 or more")
    x, y = random.random((2, n))
    return _pairs_where(np.hypot(x[i] - x, y[i] - y) <= radius for i in range(n))


def _pairs_where(rows: Iterable[NDArray[np.bool_]]) -> Iterable[Edge]:
    """Worker i with those j > i where row i is true; n × n, but a row at a time."""
    return ((i, j) for i, row in enumerate(rows) for j in np.flatnonzero(row).tolist() if j > i)


def watts_strogatz(n: int, random: Random, degree: int = 4, p: float = 0.1) -> Iterable[Edge]:
    """a ring of the `degree` nearest, each edge moved to a random end with probability `p`"""
    rule = f"an even number of 2 or more, less than the {n} workers"
    _require_option("watts_strogatz", "degree", degree, degree in range(2, n, 2), rule)
    _require_option("watts_strogatz", "p", p, 0 <= p <= 1, "a probability, 0 to 1")
    lattice = [(i, (i + k) % n) for k in range(1, degree // 2 + 1) for i in range(n)]
    peers: list[set[int]] = [set() for _ in range(n)]
    for i, j in lattice:
        _join(peers, i, j)
    for i, j in lattice:
        if random.random() < p:
            end = _free(n, random, {i, *peers[i]}, j)
            peers[i].remove(j)
            peers[j].remove(i)
            _join(peers, i, end)
    return ((i, j) for i in range(n) for j in peers[i] if i < j)


def _join(peers: list[set[int]], i: int, j: int) -> None:
    peers[i].add(j)
    peers[j].add(i)


def _free(n: int, random: Random, taken: set[int], spare: int) -> int:
    """One of the n workers that are not taken, or the spare one; all alike."""
    k = int(random.integers(n - len(taken) + 1))
    if k == n - len(taken):
        return spare
    for each in sorted(taken):
        k += k >= each
    return k


def random_regular(n: int, random: Random, degree: int = 3) -> Iterable[Edge]:
    """every worker with `degree` peers, drawn at random; n·degree even"""
    rule = f"a whole number of 1 or more, less than the {n} workers"
    _require_option("random_regular", "degree", degree, degree in range(1, n), rule)
    rule = f"an even number, since its degree {degree} is odd"
    _require_size("random_regular", n, lambda size: size * degree % 2 == 0, rule)
    if 2 * degree < n:
        return _matched_stubs(n, random, degree)
    return set(complete(n)) - _matched_stubs(n, random, n - 1 - degree)


def _matched_stubs(n: int, random: Random, degree: int) -> set[Edge]:
    """Give each worker `degree` loose ends and tie them at random in pairs, again for those that
    would make a loop or a double edge (Steger and Wormald, 1999); afresh when none can be tied."""
    edges: set[Edge] = set()
    loose = np.repeat(np.arange(n), degree)
    while len(loose):
        left: list[int] = []
        for i, j in random.permutation(loose).reshape(-1, 2).tolist():
            if i == j or _pair(i, j) in edges:
                left += [i, j]
            else:
                edges.add(_pair(i, j))
        if len(left) == len(loose):
            edges.clear()
            left = [i for i in range(n) for _ in range(degree)]
        loose = np.array(left)
    return edges


FAMILIES: dict[str, Callable[..., Iterable[Edge]]] = {
    build.__name__: build
    for build in (
        ring,
        line,
        star,
        complete,
        grid,
        torus,
        hypercube,
        exponential,
        tree,
        barbell,
        lollipop,
        erdos_renyi,
        random_geometric,
        watts_strogatz,
        random_regular,
    )
}
