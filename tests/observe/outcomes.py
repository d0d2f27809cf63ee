"""FAKES of what launcher and simulation hand over: the shapes are theirs, the figures made up."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any


def result(worker: int) -> dict[str, Any]:
    stats = {
        "started": 20,
        "completed": 19,
        "answered": 21.0,
        "abandoned": 1,
        "models_sent": 40.0 + worker,
        "bytes_sent": 1_550_000,
        "bytes_received": 1_500_000,
        "values_mixed": 40 * 100,
        "skipped": {"edge busy": 2, "peer dead": 1},
    }
    metrics = {"accuracy": 0.4 + 0.05 * worker, "loss": 1.7 - 0.1 * worker}
    wait_ms = {"median": 0.1, "max": 3.2}
    return {
        "id": worker,
        "steps": 1000,
        "loss": 0.1 * (worker + 1),
        "metrics": metrics,
        "stats": stats,
        "wait_ms": wait_ms,
    }


def outcome(workers: int = 8, dead: Collection[int] = ()) -> dict[str, Any]:
    return {
        "results": [{"id": i, "steps": 203} if i in dead else result(i) for i in range(workers)],
        "merged": {"accuracy": 0.952, "loss": 0.183},
        "merged_among": [i for i in range(workers) if i not in dead],
        "faults": [{"worker": i, "at_s": 3.14, "what": "killed by signal 9"} for i in dead],
        "wall_s": 12.34,
        "interrupted": False,
    }


def comparison() -> dict[str, Any]:
    return {
        "isolated": {"local_mean": {"accuracy": 0.45}, "merged": {"accuracy": 0.7}},
        "all-reduce": {"merged": {"accuracy": 0.962}},
    }


def statuses(workers: int = 8, step: int = 300, **changes: Any) -> list[dict[str, Any]]:
    common = {"state": "training", "steps": 1000, "loss": 0.41, "exchanges": 14}
    return [
        {**common, "worker": i, "step": step + 10 * i, "bytes_sent": 400_000, **changes}
        for i in range(workers)
    ]
