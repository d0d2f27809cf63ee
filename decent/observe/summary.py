"""The summary of a run, `summary.json`: what every worker did, and what came of it.

Everything in it can be written as strict JSON: a figure that is not finite, such as the loss of a
run that has diverged, is null. `loss` is each worker's training loss, `metrics` the task's measures
of its local model before the merge, `merged` those of the one model that the run ends in. Bytes are
payloads; `models_sent` counts whole models; `mixed_share` is the share of the values exchanged that
were also mixed in, 1 unless an exchange was cut short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from decent import __version__
from decent.config import Config
from decent.topology import Topology

Dict = dict[str, Any]
LARGE = 2000
PASSED_ON = ("virtual_s", "ideal", "consensus", "parameters")


def summarise(
    config: Config,
    topology: Topology,
    outcome: Mapping[str, Any],
    compare: Mapping[str, Any] | None = None,
    *,
    script: Sequence[str] | None = None,
) -> Dict:
    """The summary of a run from what came out of it; `script` and its arguments if it had one."""
    workers = _workers(topology, outcome)
    summary = {
        "decent": __version__,
        "seed": config.seed,
        "steps": config.steps,
        "task": None if script else config.task.name,
        "script": list(script) if script else None,
        "topology": {"name": _name(config), **_topology(topology)},
        "schedule": config.schedule.name,
        "dynamics": config.dynamics.name,
        "merge": config.merge.name,
        "workers": workers,
        "local_mean": _mean([each["metrics"] for each in workers]),
        "merged": dict(outcome.get("merged") or {}),
        "merged_among": list(outcome.get("merged_among") or []),
        **{key: outcome[key] for key in PASSED_ON if key in outcome},
        "wall_s": outcome.get("wall_s"),
        "faults": list(outcome.get("faults") or []),
        "restarts": list(outcome.get("restarts") or []),
        "interrupted": bool(outcome.get("interrupted")),
        "compare": compare,
    }
    finite: Dict = strict(summary)
    return finite


def strict(value: Any) -> Any:
    """The value as strict JSON has it: floats that are not finite are None."""
    if isinstance(value, Mapping):
        return {str(key): strict(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(each) for each in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return float(value) if math.isfinite(value) else None


def _name(config: Config) -> str:
    table = config.topology
    return Path(table.file).stem if table.file else table.name


def _topology(topology: Topology) -> Dict:
    return {
        "family": topology.family,
        "n": topology.n,
        "edges": len(topology.edges),
        "chi_1": topology.chi_1,
        "chi_2": topology.chi_2 if topology.n <= LARGE else None,  # takes too long
        "models_per_step": topology.models_per_worker(),
    }


def _workers(topology: Topology, outcome: Mapping[str, Any]) -> list[Dict]:
    found = {result["id"]: result for result in outcome.get("results") or []}
    failed = {fault["worker"] for fault in outcome.get("faults") or []}
    size = outcome.get("parameters")
    return [
        {
            "id": i,
            "name": topology.name(i),
            "alive": i in found and i not in failed,
            **_worker(found.get(i, {}), size),
        }
        for i in range(topology.n)
    ]


def _worker(result: Mapping[str, Any], size: int | None) -> Dict:
    """What is known of one worker; of one that died that may be little."""
    stats = result.get("stats") or {}
    counted = ("started", "completed", "answered", "abandoned", "repeated", "damaged")
    exchanges = {key: stats.get(key) for key in counted}
    return {
        "steps": result.get("steps"),
        "loss": result.get("loss"),
        "exchanges": {**exchanges, "skipped": dict(stats.get("skipped") or {})} if stats else None,
        "models_sent": stats.get("models_sent"),
        "refused_keys": stats.get("refused_keys"),
        "round_trips_s": stats.get("round_trips_s") or {},
        "bytes": {"sent": stats.get("bytes_sent"), "received": stats.get("bytes_received")},
        "codec_error": stats.get("codec_error"),
        "mixed_share": _mixed_share(stats, result.get("parameters", size)),
        "metrics": result.get("metrics") or {},
        "wait_ms": result.get("wait_ms"),
        "checkpoints": result.get("checkpoints"),
    }


def _mixed_share(stats: Mapping[str, Any], size: int | None) -> float | None:
    exchanges = stats.get("completed", 0) + stats.get("answered", 0)
    if not size or not exchanges or "values_mixed" not in stats:
        return None
    return float(stats["values_mixed"] / (exchanges * size))


def _mean(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Each measure's mean over the workers that have it."""
    names = dict.fromkeys(name for each in metrics for name in each)
    return {name: fmean(each[name] for each in metrics if name in each) for name in names}
