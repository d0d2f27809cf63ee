"""Tells a run that hangs, and what its workers were last doing.

A worker that trains has to make a step now and then; once all have come to the merge, one of them
has to get on with it; and the whole has to end. Statuses and seconds come from outside.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from decent.errors import RuntimeFault
from decent.folder import worker_folder

Status = Mapping[str, Any]
ENDED = ("done", "dead")
TAIL_BYTES = 4096


class Hang(RuntimeFault):
    """Nothing moves any more."""


class Watchdog:
    """`still_s`: without any progress; `end_s`: for all of it, from the first call."""

    def __init__(self, still_s: float, end_s: float) -> None:
        self._still_s, self._end_s = still_s, end_s
        self._start_s: float | None = None
        self._seen: dict[int, tuple[Any, float]] = {}  # worker → its progress, and since when

    def __call__(self, statuses: Sequence[Status], now_s: float) -> None:
        """Raises Hang."""
        self._start_s = now_s if self._start_s is None else self._start_s
        for each in statuses:
            progress = each["state"], each.get("step")
            if self._seen.get(each["worker"], (None, now_s))[0] != progress:
                self._seen[each["worker"]] = progress, now_s
        going = {
            each["worker"]: self.still_s(each["worker"], now_s)
            for each in statuses
            if each["state"] not in ENDED
        }
        training = [each["worker"] for each in statuses if each["state"] == "training"]
        for worker in training:
            if going[worker] > self._still_s:
                raise Hang(f"worker {worker} has made no step for {going[worker]:.0f} s")
        last_s = min(now_s - since_s for _, since_s in self._seen.values())
        if going and last_s > self._still_s:
            raise Hang(f"nothing has happened for {last_s:.0f} s")
        if going and now_s - self._start_s > self._end_s:
            raise Hang(f"the run has not ended after {now_s - self._start_s:.0f} s")

    def still_s(self, worker: int, now_s: float) -> float:
        """How long it has made no progress."""
        return now_s - self._seen[worker][1]


def last_words(run: Path, statuses: Sequence[Status]) -> list[str]:
    """What each worker that has not ended was last doing, by its status, trace and log."""
    found = []
    for each in statuses:
        if each["state"] not in ENDED:
            home = worker_folder(run, each["worker"])
            event = _last_event(home / "trace.jsonl")
            log = _tail(home / "log.txt")[-1:]
            found.append(
                f"worker {each['worker']}: {each['state']} at step {each.get('step')}; last in its "
                f"trace: {event}" + "".join(f"; in its log: {line}" for line in log)
            )
    return found


def _last_event(trace: Path) -> str:
    for line in reversed(_tail(trace)):
        with suppress(ValueError):
            event = json.loads(line)
            return ", ".join(f"{key} {value}" for key, value in event.items())
    return "nothing"


def _tail(file: Path) -> list[str]:
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return [line for line in opened.read().decode(errors="replace").split("\n") if line]
    except OSError:
        return []
