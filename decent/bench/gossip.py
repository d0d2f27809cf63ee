"""What gossip costs training: the same loop with and without it, in turn, in one run.

Two real workers with a large MLP. Each process takes `steps` steps alone, then as many while
gossiping, and so on for `rounds` rounds. In the packed case both train, so on a machine of two
cores each training process shares its core with a communicator; in the spare case the second one
only answers, and the communicators have a core to themselves.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from itertools import chain
from pathlib import Path
from typing import Any

from decent.config import from_dict
from decent.errors import ConfigError, RuntimeFault
from decent.launcher import launch


def bench_gossip(
    case: str, parameters: int, batch: int, steps: int, rounds: int, rate: float
) -> dict[str, Any]:
    """Medians over the first worker's steps: milliseconds per step with and without gossip, their
    ratio, and how long the optimizer waited for the communicator."""
    for name, value in (("params", parameters), ("batch", batch), ("steps", steps)):
        if value < 1:
            raise ConfigError(f"--{name} {value}", "1 or more")
    config = from_dict(
        {
            "workers": 2,
            "topology": {"name": "line", "rate": rate},
            "runtime": {"threads": 1},
        }
    )
    script = Path(__file__).with_name("gossip_worker.py")
    numbers = [case, *map(str, (parameters, batch, steps, rounds))]
    with tempfile.TemporaryDirectory() as folder:
        outcome = launch(config, Path(folder), script=script, arguments=numbers)
        if outcome["faults"]:
            raise RuntimeFault(f"a worker failed: {outcome['faults'][0]['what']}")
        measured = json.loads((Path(folder) / "bench.json").read_text())
        stats = outcome["results"][0]["stats"]
    return _figures(measured, stats) | {
        "case": case, "batch": batch, "rate": rate, "cores": len(os.sched_getaffinity(0)),
    }  # fmt: skip


def _figures(measured: dict[str, Any], stats: dict[str, Any]) -> dict[str, Any]:
    alone = list(chain(*measured["alone_rounds"]))
    gossiping = list(chain(*measured["gossip_rounds"]))
    waits = sorted(measured["waits_s"])
    step_s, plain_s = statistics.median(gossiping), statistics.median(alone)
    ratios = [
        statistics.median(with_it) / statistics.median(without)
        for with_it, without in zip(
            measured["gossip_rounds"], measured["alone_rounds"], strict=True
        )
    ]
    exchanges = stats["completed"] + stats["answered"]
    return {
        "parameters": measured["parameters"],
        "step_ms_alone": 1e3 * plain_s,
        "step_ms_gossip": 1e3 * step_s,
        "ratio": statistics.median(ratios),
        "ratio_of_means": statistics.mean(gossiping) / statistics.mean(alone),
        "cpu_ratio": measured["cpu_gossip_s"] / measured["cpu_alone_s"],
        "exchanges_per_step": exchanges / len(gossiping),
        "wait_ms_median": 1e3 * statistics.median(waits),
        "wait_ms_p99": 1e3 * waits[int(0.99 * (len(waits) - 1))],
        "wait_ms_max": 1e3 * waits[-1],
    }
