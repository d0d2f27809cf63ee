"""One of the two processes that `bench_exchange` measures: argv is a JSON object of settings.

Each holds, for each kind of exchange that is measured, a vector and what exchanges it. Measurements
are taken in turn; the first process prints them as one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from decent.bench.exchange_half import Half
from decent.bench.usage import cpu_s, peak_mb
from decent.errors import InputError


class Work(NamedTuple):
    """One exchange, and what comes before it untimed."""

    exchange: Callable[[], object]
    prepare: Callable[[], object] = lambda: None


def measured(work: Work) -> tuple[float, float]:
    """Seconds on the wall from a common start to both being done, and of both processors."""
    work.prepare()
    dist.barrier()
    start_s, start_cpu_s = time.perf_counter(), cpu_s()
    work.exchange()
    cpu = torch.tensor(cpu_s() - start_cpu_s)
    dist.barrier()
    wall_s = time.perf_counter() - start_s
    dist.all_reduce(cpu)
    return wall_s, float(cpu) / 2


def works(settings: dict[str, Any]) -> Iterator[tuple[str, Work]]:
    rank, params, folder = settings["rank"], settings["params"], Path(settings["folder"])
    for kind in settings["kinds"]:
        match kind.split("_", 1):
            case ["shared"] | ["tcp"] | ["tcp", _]:
                codec = kind[4:] or "exact" if kind != "shared" else "exact"
                half = Half(rank, settings, folder / kind, kind == "shared", codec)
                both = dist.barrier(async_op=True)
                half.serve_until(both.is_completed)  # the other may still be waiting to be met
                yield kind, Work(partial(half.exchange, rank))
            case ["gloo", "all_reduce"]:
                yield kind, Work(partial(dist.all_reduce, torch.full((params,), float(rank))))
            case ["gloo", "send_receive"]:
                x = torch.full((params,), float(rank))
                yield kind, Work(partial(_send_receive, rank, x, torch.empty_like(x)))
            case ["hivemind"]:
                from decent.bench.exchange_hivemind import Averager

                averager = Averager(rank, params)
                yield kind, Work(averager.average, averager.prepare)


def _send_receive(rank: int, x: torch.Tensor, y: torch.Tensor) -> None:
    """Send and receive the vector, and average."""
    sent = dist.isend(x, 1 - rank, tag=1)
    dist.recv(y, 1 - rank, tag=1)
    assert sent is not None
    sent.wait()
    x.add_(y).mul_(0.5)


def main(settings: dict[str, Any]) -> None:
    rank = settings["rank"]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{settings['folder']}/gloo", rank=rank, world_size=2
    )
    base_mb = peak_mb()
    try:
        found: dict[str, list[tuple[float, float]]] = {}
        in_turn = dict(works(settings))
        for _ in range(settings["rounds"] + 1):
            for kind, work in in_turn.items():
                found.setdefault(kind, []).append(measured(work))
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(2)
    if rank == 0:
        print(json.dumps({"found": found, "peak_mb": peak_mb() - base_mb}), flush=True)
    dist.barrier()
    os._exit(0)  # sockets and groups need no good-byes here


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
