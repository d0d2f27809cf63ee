"""The TOML format of topologies.

A TOML file names a family, or lists its edges::

    family = "ring"                   source = "where the figures come from"
    workers = 16                      models_per_worker = 1.0
    options = { }                     [[worker]]
    rate = 1.0                        name = "london"
    seed = 0                          address = "tcp://10.0.0.1:5555"
    models_per_worker = 1.0           region = "eu-gb"
                                      key = "40 characters, public"
                                      [[edge]]
                                      between = ["london", "frankfurt"]
                                      rate = 1.0
                                      round_trip_ms = 15
                                      bandwidth_mbps = 1000

Rates are exchanges per unit of time (one local gradient step); `rate` at the top is that of edges
without their own; `models_per_worker`, if given, scales all rates so that a worker sends that many
models per unit of time on average. Workers may be listed for a family too; without a list,
`between` takes numbers from 0. Unknown keys are refused.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from typing import Any

import msgspec

from decent.errors import TopologyError
from decent.topology.families import family
from decent.topology.graph import Link, Topology


class _Worker(msgspec.Struct, forbid_unknown_fields=True):
    name: str | None = None
    address: str | None = None
    region: str | None = None
    key: str | None = None


class _Edge(msgspec.Struct, forbid_unknown_fields=True):
    between: tuple[str | int, str | int]
    rate: float | None = None
    round_trip_ms: float | None = None
    bandwidth_mbps: float | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    family: str = "custom"
    workers: int | None = None
    options: dict[str, int | float] = {}
    rate: float = 1.0
    seed: int = 0
    models_per_worker: float | None = None
    source: str = ""
    worker: list[_Worker] = []
    edge: list[_Edge] | None = None


def from_toml(data: bytes) -> Topology:
    """The topology that the text of a TOML file describes."""
    raw: Any = None
    try:
        raw = tomllib.loads(data.decode())
        file = msgspec.convert(raw, _File)
    except msgspec.ValidationError as error:
        raise _refused(raw, str(error)) from error
    except ValueError as error:
        raise TopologyError(
            f"not readable as TOML ({error})", "TOML", "correct the line"
        ) from error
    topology = _generated(file) if file.edge is None else _listed(file, file.edge)
    per_worker = file.models_per_worker
    return topology if per_worker is None else topology.with_models_per_worker(per_worker)


def _refused(raw: Any, message: str) -> TopologyError:
    """What msgspec refused, with the place in the file and the value found there."""
    reason, _, place = message.partition(" - at `$")
    value = raw
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        value = value[key] if key else value[int(index)]
    where = place.strip(".`") or "the file"
    table = {"edge": _Edge, "worker": _Worker}.get(where.partition("[")[0], _File)
    keys = ", ".join(table.__struct_fields__)
    if reason.startswith("Expected "):
        return TopologyError(
            f"{where} = {value!r}", reason.removeprefix("Expected "), f"the keys here are {keys}"
        )
    return TopologyError(f"{where}: {reason}", f"the keys {keys}", "correct or remove the key")


def _generated(file: _File) -> Topology:
    options: dict[str, Any] = file.options
    misplaced = sorted(options.keys() & {"name", "n", "rate", "seed"})
    if misplaced:
        raise TopologyError(
            f"options.{misplaced[0]} = {options[misplaced[0]]}",
            "the family's own options",
            "rate and seed stand at the top of the file, n is `workers` there",
        )
    built = family(file.family, _count(file), rate=file.rate, seed=file.seed, **options)
    return replace(built, source=file.source, **_described(file.worker))


def _listed(file: _File, edges: list[_Edge]) -> Topology:
    if file.options:
        raise TopologyError(
            f"options = {file.options} beside [[edge]]",
            "a family with its options, or a list of edges",
            "remove the one or the other",
        )
    number: dict[str | int, int] = {i: i for i in range(_count(file))}
    number |= {worker.name: i for i, worker in enumerate(file.worker) if worker.name is not None}
    return Topology.from_edges(
        _count(file),
        [(_end(k, edge, 0, number), _end(k, edge, 1, number)) for k, edge in enumerate(edges)],
        [file.rate if edge.rate is None else edge.rate for edge in edges],
        links=_links(edges),
        family=file.family,
        source=file.source,
        **_described(file.worker),
    )


def _count(file: _File) -> int:
    """The number of workers: `workers`, the length of the list, or both if they agree."""
    listed = len(file.worker)
    if file.workers is None and not listed:
        raise TopologyError(
            "neither workers nor [[worker]]", "the number of workers", "add workers = 16, say"
        )
    if file.workers is not None and listed not in (0, file.workers):
        raise TopologyError(
            f"workers = {file.workers}, but {listed} [[worker]] tables",
            "the same number",
            "leave workers out",
        )
    return listed or file.workers or 0


def _end(k: int, edge: _Edge, side: int, number: dict[str | int, int]) -> int:
    end = edge.between[side]
    if end not in number:
        known = ", ".join(str(each) for each in number if isinstance(each, str))
        raise TopologyError(
            f"edge[{k}].between = {list(edge.between)}: no worker {end!r}",
            known or f"numbers from 0 to {len(number) - 1}",
            "list the worker under [[worker]], or correct the edge",
        )
    return number[end]


def _links(edges: list[_Edge]) -> list[Link] | None:
    if all(edge.round_trip_ms is None and edge.bandwidth_mbps is None for edge in edges):
        return None
    for k, edge in enumerate(edges):
        if edge.round_trip_ms is None:
            raise TopologyError(
                f"edge[{k}] between {list(edge.between)} has no round_trip_ms",
                "round_trip_ms on every edge, or neither it nor bandwidth_mbps on any",
                "add round_trip_ms, in milliseconds there and back",
            )
    return [
        Link(
            (edge.round_trip_ms or 0.0) / 2000,
            None if edge.bandwidth_mbps is None else edge.bandwidth_mbps * 1e6,
        )
        for edge in edges
    ]


def _described(workers: list[_Worker]) -> dict[str, Any]:
    """`names`, `addresses`, `regions` and `keys`, each where any worker has one."""
    unnamed = [i for i, worker in enumerate(workers) if worker.name is None]
    if 0 < len(unnamed) < len(workers):
        raise TopologyError(
            f"worker[{unnamed[0]}] has no name", "a name for all workers or none", "add its name"
        )
    columns = {
        "names": tuple(worker.name for worker in workers),
        "addresses": tuple(worker.address for worker in workers),
        "regions": tuple(worker.region for worker in workers),
        "keys": tuple(worker.key for worker in workers),
    }
    return {key: column for key, column in columns.items() if any(v is not None for v in column)}


def to_toml(topology: Topology) -> bytes:
    """The topology with every edge and rate listed, so that it reads back as it is."""
    workers = topology.names or topology.addresses or topology.regions or topology.keys
    tables = [_worker_table(topology, i) for i in range(topology.n)] if workers else []
    tables += [_edge_table(topology, k) for k in range(len(topology.edges))]
    head: dict[str, Any] = {
        "source": topology.source or None,
        "family": topology.family,
        "workers": topology.n,
        "edge": None if topology.edges else [],
    }
    return "\n".join([_keys(head), *tables]).encode()


def _worker_table(topology: Topology, i: int) -> str:
    columns = {
        "name": topology.names, "address": topology.addresses, "region": topology.regions,
        "key": topology.keys,
    }  # fmt: skip
    return "[[worker]]\n" + _keys({key: column and column[i] for key, column in columns.items()})


def _edge_table(topology: Topology, k: int) -> str:
    link = topology.links[k] if topology.links else None
    bandwidth = link.bandwidth_bps if link else None
    return "[[edge]]\n" + _keys(
        {
            "between": [topology.names[i] if topology.names else i for i in topology.edges[k]],
            "rate": topology.rates[k],
            "round_trip_ms": link.latency_s * 2000 if link else None,
            "bandwidth_mbps": None if bandwidth is None else bandwidth / 1e6,
        }
    )


def _keys(values: dict[str, Any]) -> str:
    """Lines `key = value`, without those that are None. JSON's strings, numbers and flat arrays are
    TOML's, but that TOML escapes the delete character too."""
    texts = {key: json.dumps(v, ensure_ascii=False) for key, v in values.items() if v is not None}
    return "".join(f"{key} = {text}\n" for key, text in texts.items()).replace("\x7f", "\\u007f")
