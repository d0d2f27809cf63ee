"""Where a run is, in words and figures: what both the live view and the plain lines say.

A status is a dictionary for each worker, as the launcher and the simulation hand over a few times
a second: worker, state, step, steps, loss, exchanges, bytes_sent, … Any key but `worker` may be
missing, and a worker that has not reported yet may be missing altogether.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Status = Mapping[str, Any]
STATES = ("starting", "training", "merging", "done")


def totals(statuses: Sequence[Status]) -> dict[str, Any]:
    """Over all workers that live: the state of the last, steps, mean loss and exchanges; over all:
    megabytes sent and how many are dead."""
    alive = [each for each in statuses if each.get("state") != "dead"]
    behind = min((_stage(each) for each in alive), default=len(STATES) if statuses else 0)
    losses = [each["loss"] for each in alive if _known(each.get("loss"))]
    return {
        "state": [*STATES, "dead"][behind],
        "workers": len(statuses),
        "dead": len(statuses) - len(alive),
        "low": min((each.get("step") or 0 for each in alive), default=0),
        "high": max((each.get("step") or 0 for each in alive), default=0),
        "steps": max((each.get("steps") or 0 for each in statuses), default=0),
        "loss": fmean(losses) if losses else None,
        "exchanges": fmean(each.get("exchanges") or 0 for each in alive) if alive else 0.0,
        "mb_sent": sum(each.get("bytes_sent") or 0 for each in statuses) / 1e6,
    }


def describe(statuses: Sequence[Status]) -> str:
    """One line: "training: 8 workers, steps 300–520 of 1000, loss 0.41, …"."""
    now = totals(statuses)
    parts = [f"{now['workers']} worker{'s' * (now['workers'] != 1)}"]
    if now["dead"]:
        parts.append(f"{now['dead']} dead")
    if now["high"]:
        span = f"{now['low']}–{now['high']}" if now["low"] < now["high"] else str(now["high"])
        parts.append(f"step{'s' * (now['low'] < now['high'])} {span} of {now['steps']}")
    if now["loss"] is not None:
        parts.append(f"loss {now['loss']:.3g}")
    if now["high"]:
        parts += [f"{now['exchanges']:.0f} exchanges each", f"{now['mb_sent']:.1f} MB sent"]
    return f"{now['state']}: " + ", ".join(parts)


def _stage(status: Status) -> int:
    state = status.get("state")
    return STATES.index(state) if state in STATES else 0


def _known(value: Any) -> bool:
    return value is not None and math.isfinite(value)
