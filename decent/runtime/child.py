"""One worker process of a launched run: a task's training loop, or a user's script.

Started by the launcher out of a fork server that has imported torch once. Its standard output goes
to `log.txt`; its status goes to the launcher over a pipe; SIGINT asks it to stop in good order.
"""

from __future__ import annotations

import atexit
import fcntl
import io
import os
import random
import runpy
import select
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from decent.config import Config
from decent.errors import DecentError, InputError, RuntimeFault
from decent.folder import worker_folder, write_json
from decent.learning import Trainer
from decent.runtime import world
from decent.runtime.gossip import Gossip
from decent.schedule import stream
from decent.worker import Span

FAILURE = "error.json"
GONE = "the launcher is gone; this worker stops too"
FORMER_S = 30.0
INTERRUPTED, FAILED, MISUSED = 130, 1, 2


@dataclass(frozen=True)
class Job:
    """What a worker process is to do. `script` None: the config's task."""

    me: int
    run: str
    folder: Path
    config: Config
    origin_s: float
    script: Path | None = None
    arguments: tuple[str, ...] = ()
    span: Span | None = None  # the checkpoint to go on from
    rejoins: bool = False
    returns: bool = False


def main(job: Job, pipe: Connection) -> None:
    """The process's life; its exit code says how it ended."""
    os.setpgrp()  # the launcher alone hears Ctrl-C, and passes it on
    atexit._clear()  # those of the fork server
    home = worker_folder(job.folder, job.me)
    _redirect(home / "log.txt")
    torch.set_num_threads(job.config.runtime.threads)
    world.enter(_world(job, pipe))
    try:
        try:
            _script(job) if job.script else train(job.config)
        finally:
            atexit._run_exitfuncs()  # a process of multiprocessing would not
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except DecentError as error:
        traceback.print_exc()
        write_json(home / FAILURE, {"kind": type(error).__name__, "text": str(error)})
        sys.exit(MISUSED if isinstance(error, InputError) else FAILED)


def train(config: Config) -> None:
    """The task of `config` as this process's worker: steps, one merge, evaluation."""
    here = world.current() or world.World(config=config)
    trainer = Trainer.of(config, here.me, config.make_topology().n)
    gossip = Gossip(trainer.model, trainer.optimizer, steps=config.steps)
    with gossip:
        gossip.keep(trainer=trainer)
        if not gossip.resumed:
            trainer.skip(gossip.steps)  # one that rejoins from a neighbour's model
        for _ in range(gossip.steps, config.steps):
            gossip.step(loss=trainer.step())
        gossip.log(**trainer.evaluate())
        gossip.merge(trainer.samples, trainer.batches(32), trainer.task.loss)
        if here.me == min(gossip.merged_among):
            if not config.apart:
                gossip.log(**trainer.evaluate())
            trainer.keep()


def _script(job: Job) -> None:
    assert job.script is not None
    sys.argv = [str(job.script), *job.arguments]
    sys.path.insert(0, str(job.script.resolve().parent))
    seed = int(stream(job.config.seed, "script", job.me).integers(2**32))
    for sow in (random.seed, np.random.seed, torch.manual_seed):  # forks would all draw the same
        sow(seed)
    runpy.run_path(str(job.script), run_name="__main__")


def _redirect(log: Path) -> None:
    """The log is locked by whoever writes to it, the communicator too, until the last has ended:
    so a worker's former self is gone when this returns."""
    log.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    end_s = time.monotonic() + FORMER_S
    while not _locked(fd):
        if time.monotonic() > end_s:
            raise RuntimeFault(f"a former process of this worker still writes to {log}")
        time.sleep(0.1)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _world(job: Job, pipe: Connection) -> world.World:
    def report(status: dict[str, Any]) -> None:
        try:
            if select.select([], [pipe], [], 0)[1]:  # else the launcher sleeps: do not wait
                pipe.send(status)
        except OSError:
            raise RuntimeFault(GONE) from None

    def gate() -> None:
        try:
            pipe.recv()
        except (EOFError, OSError):
            raise RuntimeFault(GONE) from None

    return world.World(
        me=job.me, run=job.run, folder=job.folder, config=job.config, report=report, gate=gate,
        origin_s=job.origin_s, span=job.span, rejoins=job.rejoins, returns=job.returns,
    )  # fmt: skip
