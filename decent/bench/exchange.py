"""What an exchange costs, against torch.distributed, or hivemind, between the same two processes.

Both hold a vector of float32. In turn, in one run: our exchange through shared memory, and over TCP
in each codec; gloo's all-reduce, and gloo's send and receive followed by the mean; and hivemind's
averaging, if asked for. Seconds are medians, on the wall from a common start until both are done,
and of the processor for each process. Memory is measured in runs of their own, as what a process
has at its peak beyond its imports.
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

from decent.config import Config
from decent.errors import ConfigError, MissingExtra, RuntimeFault
from decent.runtime.link import SURROUNDINGS
from decent.transport import bounds
from decent.worker import codecs

PEERS = {"gloo": ("gloo_all_reduce", "gloo_send_receive"), "hivemind": ("hivemind",)}
TIMEOUT_S = 900.0


def bench_exchange(
    params: int,
    rounds: int,
    dynamics: str = "gossip",
    chunk_kib: int | None = None,
    in_codecs: Sequence[str] = ("exact", "bf16"),
    peers: Sequence[str] = ("gloo",),
    ledger: bool = True,
) -> dict[str, Any]:
    """Medians for each kind, their ratios to the peers', and peak memory. `chunk_kib` None: what a
    run on one machine takes."""
    if chunk_kib is None:
        chunk_kib = bounds.chunk_kib(Config(), apart=False, nbytes=4 * params)
    for name, value in (("params", params), ("rounds", rounds), ("chunk-kib", chunk_kib)):
        if value < 1:
            raise ConfigError(f"--{name} {value}", "1 or more")
    for codec in in_codecs:
        codecs.get(codec)
    settings = {
        "params": params, "dynamics": dynamics, "chunk_kib": chunk_kib,
        "ledger": "auto" if ledger else False,
    }  # fmt: skip
    tcp = ["tcp" if codec == "exact" else f"tcp_{codec}" for codec in in_codecs]
    others = [kind for peer in peers for kind in PEERS[peer]]
    found = _pair({**settings, "rounds": rounds, "kinds": ["shared", *tcp, *others]})["found"]
    wall, cpu = (
        {kind: statistics.median(each[k] for each in times[1:]) for kind, times in found.items()}
        for k in range(2)
    )
    return {
        **settings, "wall_s": wall, "cpu_s": cpu, "ratios": _ratios(wall, cpu, tcp),
        "peak_mb": _peaks(settings, ["shared", *tcp, *PEERS["gloo"]]),
        "model_mb": params * 4 / 2**20,
        "state_mb": params * 4 * (dynamics == "a2cid2") / 2**20,  # beyond the model
    }  # fmt: skip


def _ratios(wall: dict[str, float], cpu: dict[str, float], tcp: list[str]) -> dict[str, Any]:
    """Ours to theirs: what is alike, and everything to hivemind."""
    pairs = [("shared", "gloo_all_reduce"), *((kind, "gloo_send_receive") for kind in tcp)]
    pairs += [(kind, "hivemind") for kind in ("shared", *tcp)]
    return {
        f"{ours} / {other}": {"wall": wall[ours] / wall[other], "cpu": cpu[ours] / cpu[other]}
        for ours, other in pairs
        if other in wall
    }


def _peaks(settings: dict[str, Any], kinds: Sequence[str]) -> dict[str, float]:
    """MiB of a process that does one of them, at its peak: the model included."""
    return {kind: _pair({**settings, "rounds": 1, "kinds": [kind]})["peak_mb"] for kind in kinds}


def _pair(settings: dict[str, Any]) -> dict[str, Any]:
    """Both processes; what the first one printed."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "decent.bench.exchange_peer",
                 json.dumps({**settings, "rank": rank, "folder": folder})],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                env={**os.environ, **SURROUNDINGS},
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
        if process.returncode == 2:
            raise MissingExtra(complaint.strip().splitlines()[-1])
        if process.returncode:
            raise RuntimeFault(f"a process of the benchmark failed: {complaint.strip()[-400:]}")
    found: dict[str, Any] = json.loads(said[0][0])
    return found
