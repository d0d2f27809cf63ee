"""Going on with a run whose processes are gone: what its folder says, and what is taken back.

`run.json` says which run it is, how often it was resumed, and what script it runs. All workers go
on from one line of checkpoints (`worker.cuts`); journals lose what came after it. Messages of the
run's former lives are those of another run: the number of lives is part of its name.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from decent.errors import ConfigError
from decent.folder import read_json, worker_folder, write_json
from decent.worker import Span

FILE = "run.json"
STALE = ("endpoint.json", "error.json", "result.json")
ASK = "decent launch --checkpoint-every N takes some"


@dataclass(frozen=True)
class Run:
    """What `run.json` holds; `spans` are the checkpoints to go on from, by worker."""

    id: str
    workers: int
    script: str | None = None
    arguments: tuple[str, ...] = ()
    apart: bool = False
    """whether workers have nothing to do with each other"""
    resumed: int = 0
    spans: dict[int, Span] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As messages have it."""
        return f"{self.id}+{self.resumed}" if self.resumed else self.id

    @property
    def together(self) -> int:
        """How many workers' checkpoints have to fit together."""
        return 1 if self.apart else self.workers

    def newest(self, out: Path, worker: int) -> Span | None:
        """A worker's latest checkpoint."""
        from decent.runtime.checkpoint import Checkpoints

        return next(reversed(Checkpoints(out, worker, self.together).spans()), None)

    def write(self, out: Path) -> None:
        known = asdict(self)
        del known["spans"]
        write_json(out / FILE, known)


def read(out: Path) -> Run:
    """The run in a folder. Raises ConfigError if there is none, or it cannot be resumed."""
    if not (out / FILE).is_file() or not (out / "config.toml").is_file():
        raise ConfigError(
            f"--resume {out}: not the folder of a run of `decent launch`",
            f"a folder with config.toml and {FILE}", "check the path",
        )  # fmt: skip
    if (out / "summary.json").is_file() and _finished(read_json(out / "summary.json")):
        raise ConfigError(
            f"--resume {out}: this run has come to its end", "one that was broken off",
            "its models are in the folder; start a new run to train more",
        )  # fmt: skip
    found = read_json(out / FILE)
    return Run(**{**found, "arguments": tuple(found["arguments"])})


def _finished(summary: dict[str, Any]) -> bool:
    failed = summary["faults"] and not summary["merged_among"]
    return not summary["interrupted"] and not failed


def resumable(out: Path, restarts: int = 0) -> Run:
    """The run in `out`, with the checkpoints that its workers go on from. With `restarts`, those
    that lack one may rejoin the others; those kept apart begin anew."""
    run = read(out)
    spans = _spans(run, out)
    if not spans:
        raise ConfigError(
            f"--resume {out}: there is no checkpoint in it", "a run that has taken some", ASK
        )
    lacking = sorted(set(range(run.workers)) - set(spans))
    if lacking and not restarts and not run.apart:
        raise ConfigError(
            f"--resume {out}: no checkpoint that goes with those of the others, of worker"
            f"{'s' * (len(lacking) > 1)} {', '.join(map(str, lacking))}",
            "one of every worker",
            "give --restarts 1: they rejoin the others, from an older one or a neighbour's model",
        )  # fmt: skip
    return replace(run, spans=spans, resumed=run.resumed + 1)


def _spans(run: Run, out: Path) -> dict[int, Span]:
    """One line of checkpoints, or each worker's newest if they are apart."""
    from decent.runtime.checkpoint import lines

    if not run.apart:
        return lines(out, run.workers)
    found = {worker: run.newest(out, worker) for worker in range(run.workers)}
    return {worker: span for worker, span in found.items() if span is not None}


def begin(run: Run, out: Path) -> float:
    """Take back what was left after the checkpoints; the seconds of the trace at which they were
    taken."""
    from decent.runtime.checkpoint import Checkpoints, seconds

    run.write(out)
    (out / "summary.json").unlink(missing_ok=True)
    for worker in range(run.workers):
        for name in STALE:
            (worker_folder(out, worker) / name).unlink(missing_ok=True)
    if run.together == 1:
        return 0.0
    files = [Checkpoints(out, me, run.workers).path(s, "gossip") for me, s in run.spans.items()]
    return max(map(seconds, files), default=0.0)


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Nobody else carries out the run in `out` meanwhile."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{out}: this run is still going on", "one that has ended", "stop it first"
        ) from None
    else:
        yield
    finally:
        os.close(handle)
