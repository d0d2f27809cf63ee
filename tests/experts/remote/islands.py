"""What the tests of remote experts share: a server in a thread or in a process of its own, and
experts that are known functions."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from decent.experts.remote.server import Served, Server
from decent.experts.remote.serving import Door, listening

SHAPE = (3,)
LOCAL = "tcp://127.0.0.1:*"
PATIENCE_S = 30.0


def expert(k: int) -> Callable[..., Tensor]:
    """x·(k + 1) + t, and the label where there is one."""

    def velocity(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        own = x * (k + 1) + t[:, None]
        return own if condition is None else own + condition[:, None]

    return velocity


def served(*numbers: int, model: Callable[..., Tensor] | None = None) -> dict[int, Served]:
    return {k: Served(model or expert(k), f"digest-{k}", SHAPE, classes=5) for k in numbers}


@contextmanager
def island(experts: Mapping[int, Served], door: Door | None = None) -> Iterator[Server]:
    """A server in a thread of this process."""
    stop = threading.Event()
    with listening(experts, door or Door(LOCAL)) as server:

        def run() -> None:
            while not stop.is_set():
                server.round(0.02)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server
        finally:
            stop.set()
            thread.join()


def hosts(path: Path, *tables: Mapping[str, Any], **settings: Any) -> Path:
    """A file of hosts; digests are those of `served` unless given."""
    lines = [f"{key} = {_text(value)}" for key, value in settings.items()]
    for table in tables:
        lines.append("\n[[expert]]")
        full = {"digest": f"digest-{table['number']}"} | dict(table)
        lines += [f"{key} = {_text(value)}" for key, value in full.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def _text(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


@contextmanager
def process(*arguments: str | Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`decent serve …` and the address where it listens; killed at the end if it still runs."""
    code = "import sys; from decent.cli import main; main(sys.argv[1:], prog_name='decent')"
    started = subprocess.Popen(
        [sys.executable, "-u", "-c", code, "serve", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert started.stdout is not None
        line = started.stdout.readline()
        assert line.startswith("listening on "), line + started.stdout.read()
        yield started, line.split()[-1]
    finally:
        started.kill()
        started.communicate()


def inputs(rows: int = 4, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, *SHAPE, generator=generator, dtype=dtype)
    return x, torch.rand(rows, generator=generator, dtype=dtype)
