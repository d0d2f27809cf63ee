"""What an exchange costs, against torch.distributed between the same two processes.

Both hold a vector of float32. In turn, in one run: our exchange over TCP, our exchange through
shared memory, gloo's all-reduce, and gloo's send and receive followed by the mean. Seconds are
medians on the wall, from a common start until both are done, and of the processor for each process.
Memory is measured in runs of their own, as what a process has at its peak beyond its imports.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from decent.errors import ConfigError, RuntimeFault
from decent.runtime.link import ALLOCATOR

KINDS = ("shared", "tcp", "gloo_all_reduce", "gloo_send_receive")
TIMEOUT_S = 900.0


def bench_exchange(
    params: int, rounds: int, dynamics: str = "gossip", chunk_kib: int = 512
) -> dict[str, Any]:
    """Medians for each kind, their ratios to gloo's, and peak memory."""
    for name, value in (("params", params), ("rounds", rounds), ("chunk-kib", chunk_kib)):
        if value < 1:
            raise ConfigError(f"--{name} {value}", "1 or more")
    settings = {"params": params, "dynamics": dynamics, "chunk_kib": chunk_kib}
    found = _pair({**settings, "rounds": rounds, "kinds": KINDS})["found"]
    wall, cpu = (
        {kind: statistics.median(each[k] for each in times[1:]) for kind, times in found.items()}
        for k in range(2)
    )
    peaks = {
        kind: _pair({**settings, "rounds": 1, "kinds": [kind]})["peak_mb"]
        for kind in ("shared", "tcp", "gloo_all_reduce")
    }
    return {
        **settings, "wall_s": wall, "cpu_s": cpu, "peak_mb": peaks,
        "state_mb": params * 4 * (2 if dynamics == "a2cid2" else 1) / 2**20,
        "shared_over_gloo_all_reduce": _ratios(wall, cpu, "shared", "gloo_all_reduce"),
        "tcp_over_gloo_send_receive": _ratios(wall, cpu, "tcp", "gloo_send_receive"),
    }  # fmt: skip


def _ratios(wall: dict[str, float], cpu: dict[str, float], ours: str, other: str) -> dict[str, Any]:
    return {"wall": wall[ours] / wall[other], "cpu": cpu[ours] / cpu[other]}


def _pair(settings: dict[str, Any]) -> dict[str, Any]:
    """Both processes; what the first one printed."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "decent.bench.exchange_peer",
                 json.dumps({**settings, "rank": rank, "folder": folder})],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **ALLOCATOR},
            )
            for rank in range(2)
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=TIMEOUT_S) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return _answer(processes, said)


def _answer(
    processes: Sequence[subprocess.Popen[str]], said: Sequence[tuple[str, str]]
) -> dict[str, Any]:
    for process, (_, complaint) in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeFault(f"a process of the benchmark failed: {complaint.strip()[-400:]}")
    found: dict[str, Any] = json.loads(said[0][0])
    return found
