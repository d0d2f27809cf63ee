"""What a run keeps as it goes on: real workers at full rate, watched from outside.

Every worker trains a plain quadratic of its own, in short steps, and asks for more exchanges than
there is time for: as soon as one is done the next begins. Meanwhile the memory and the open files
of each training process and each communicator are sampled, the sizes of what is written, and the
exchanges. What has grown between the first two minutes and the end, and is not a file, is a leak.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from decent.bench.usage import children, open_files, proportional_mb, resident_mb
from decent.config import from_dict
from decent.errors import ConfigError, RuntimeFault
from decent.folder import worker_folder
from decent.launcher import launch

Figures = dict[str, Any]
EARLY_S = 120.0
"""when pools, caches and the state itself have the size that they keep"""
EVERY_S = 1.0
JOURNALS = ("trace", "ledger")


def bench_soak(
    minutes: float,
    workers: int = 2,
    params: int = 2_000_000,
    codec: str = "exact",
    shared_memory: bool = True,
    rate: float = 4.0,
    on_sample: Callable[[str], None] = print,
) -> Figures:
    """The figures at two minutes (at half of the time, if that is sooner), at the end, and their
    differences. `rate`: models that each worker is to send per step, if it can."""
    if minutes <= 0 or params < 1 or workers < 2:
        given = f"--minutes {minutes} --params {params} --workers {workers}"
        raise ConfigError(given, "more than 0 minutes, 1 or more values, 2 or more workers")
    config = from_dict(
        {
            "workers": workers,
            "topology": {"name": "ring" if workers > 2 else "line", "rate": rate},
            "exchange": {"codec": codec},
            "runtime": {"threads": 1, "shared_memory": shared_memory},
        }
    )
    script = Path(__file__).with_name("soak_worker.py")
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), min(EARLY_S, 30 * minutes), on_sample)
        arguments = [str(params), str(60 * minutes)]
        outcome = launch(
            config, Path(folder), script=script, arguments=arguments, on_status=watch.look
        )
        if outcome["faults"]:
            raise RuntimeFault(f"a worker failed: {outcome['faults'][0]['what']}")
    return {
        "minutes": minutes, "workers": workers, "parameters": params, "codec": codec,
        "shared_memory": shared_memory, **watch.figures(),
    }  # fmt: skip


class Watch:
    """Samples the processes of a run in `folder` while all of them train; keeps the first sample
    after `early_s` and the latest."""

    def __init__(self, folder: Path, early_s: float, note: Callable[[str], None]) -> None:
        self._folder, self._early_s, self._note = folder, early_s, note
        self._start_s: float | None = None
        self._due_s = 0.0
        self._early: Figures | None = None
        self._latest: Figures | None = None

    def look(self, status: list[dict[str, Any]]) -> None:
        """What the launcher calls as it watches."""
        if any(each["state"] != "training" for each in status):
            return
        now_s = time.monotonic()
        if self._start_s is None:
            self._start_s = now_s
        at_s = now_s - self._start_s
        if at_s < self._due_s:
            return
        self._due_s = at_s + EVERY_S
        self._latest = self._sample(at_s, status)
        if self._early is None and at_s >= self._early_s:
            self._early = self._latest
            self._note(f"at {at_s:.0f} s: {self._latest['exchanges']:,.0f} exchanges so far")

    def figures(self) -> Figures:
        """Early, at the end, and what has been added."""
        early, end = self._early, self._latest
        if early is None or end is None or early is end:
            raise RuntimeFault("the workers stopped before there was anything to compare")
        early["exchanges_per_s"] = early["exchanges"] / early["at_s"]
        end["exchanges_per_s"] = (end["exchanges"] - early["exchanges"]) / (
            end["at_s"] - early["at_s"]
        )
        return {"early": early, "end": end, "difference": _difference(early, end)}

    def _sample(self, at_s: float, status: list[dict[str, Any]]) -> Figures:
        found: Figures = {"at_s": at_s}
        found["exchanges"] = sum(each.get("completed", 0) for each in status)
        for each in status:
            me, pid = each["worker"], each["pid"]
            found[f"training_{me}"] = _process(pid)
            for child in children(pid):
                found[f"communicator_{me}"] = _process(child)
            for journal in JOURNALS:
                file = worker_folder(self._folder, me) / f"{journal}.jsonl"
                found[f"{journal}_{me}_mb"] = file.stat().st_size / 2**20 if file.exists() else 0.0
        return found


def _process(pid: int) -> Figures:
    return {
        "rss_mb": resident_mb(pid),
        "pss_mb": proportional_mb(pid),
        "open_files": open_files(pid),
    }


def _difference(early: Figures, end: Figures) -> Figures:
    """Figure by figure."""
    return {
        name: _difference(early[name], value) if isinstance(value, dict) else value - early[name]
        for name, value in end.items()
        if name in early
    }
