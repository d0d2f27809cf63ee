"""The families of graphs by name: ``family("ring", 16)``. Workers count from 0.

Every edge gets the same rate in exchanges per unit of time. Deterministic families follow the
conventions of the literature on gossip (one unit of time is one local gradient step, chords of
the exponential graph undirected, barbell of two cliques joined by one edge). Random ones are
drawn again, from a generator seeded by (seed, attempt), until they come out connected.

To add a family, write its function in `shapes` and put it into `FAMILIES` there.
"""

from __future__ import annotations

import inspect

import numpy as np

from decent.errors import TopologyError
from decent.topology.edges import connected, without_repeats
from decent.topology.graph import Topology
from decent.topology.shapes import FAMILIES, Option

ATTEMPTS = 1000


def families() -> dict[str, str]:
    """Names of all families, with a line on each."""
    return {name: inspect.getdoc(build) or "" for name, build in FAMILIES.items()}


def family(name: str, n: int, rate: float = 1.0, seed: int = 0, **options: Option) -> Topology:
    """The family's graph of `n` workers at `rate` exchanges per unit of time on every edge. `seed`
    matters to random families alone; `options` are the family's own, such as p, radius, degree."""
    build = FAMILIES.get(name)
    if build is None:
        raise TopologyError(
            f"topology family {name!r}",
            f"one of {', '.join(FAMILIES)}",
            "choose one, or list the edges one by one",
        )
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise TopologyError(
            f"{n} workers", "a whole number, 1 or more", "give the number of workers"
        )
    n = int(n)
    takes = list(inspect.signature(build).parameters)
    options = _checked(name, options, [each for each in takes if each not in ("n", "random")])
    if "random" not in takes:
        edges = without_repeats(n, build(n, **options))
        return Topology.from_edges(n, edges, rate, family=name)
    return _draw(name, n, rate, seed, options)


def _checked(name: str, options: dict[str, Option], known: list[str]) -> dict[str, Option]:
    """The options, whole numbers as int, once each is known and a number."""
    for key, value in options.items():
        if key not in known:
            raise TopologyError(
                f"option {key} of the {name} family", ", ".join(known) or "none", "remove it"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TopologyError(
                f"option {key} = {value!r} of the {name} family", "a number", "write it unquoted"
            )
    return {k: int(v) if float(v).is_integer() else v for k, v in options.items()}


def _draw(name: str, n: int, rate: float, seed: int, options: dict[str, Option]) -> Topology:
    if seed < 0:
        raise TopologyError(f"seed {seed}", "0 or more", "give another seed")
    for attempt in range(ATTEMPTS):
        random = np.random.default_rng((seed, attempt))
        edges = without_repeats(n, FAMILIES[name](n, random=random, **options))
        if connected(n, edges):
            return Topology.from_edges(n, edges, rate, family=name)
    raise TopologyError(
        f"{name} of {n} workers with {options or 'its defaults'}: {ATTEMPTS} draws, none connected",
        "options at which a connected graph is likely",
        "raise p, radius or degree",
    )
