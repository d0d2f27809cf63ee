"""Trainings as processes of this machine that share nothing, so many at a time, and watched.

Each is a fork of a server that has imported torch once, has one thread and one device, and tells
its status over a pipe: {"name", "state", "device", "step", "steps", "loss"}; states are waiting,
training, done, failed. One that fails or is killed is noted, and nobody else notices. When the one
that started them is interrupted or gone, all end between two steps, with a checkpoint each.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from decent import errors
from decent.errors import DecentError, InputError
from decent.experts.work import DEFAULTS, Options, finished
from decent.learning.devices import each_known

Status = dict[str, Any]
Show = Callable[[list[Status]], object]
REFRESH_S = 0.2
GRACE_S = 15.0
"""between asking trainings to stop and killing them"""
INTERRUPTED, FAILED, MISUSED = 130, 1, 2


@dataclass(frozen=True)
class Job:
    """What a process is to train."""

    folder: Path
    name: str
    again: bool
    options: Options


def train(
    folder: Path,
    names: Sequence[str],
    parallel: int = 1,
    again: bool = False,
    options: Options = DEFAULTS,
    on_status: Show = lambda statuses: None,
) -> list[Status]:
    """Train `names` in the ensemble's folder, `parallel` at a time, skipping what is trained; the
    final statuses. Of several devices each training gets the one with the fewest. Raises
    ConfigError for a device that is not there, before anything starts, and InputError if that is
    why a training could not begin, once all ended."""
    devices = each_known(options.device)
    jobs = [
        Job(folder, name, again, options) for name in names if again or not finished(folder, name)
    ]
    crew = _Crew(jobs, parallel, on_status, devices)
    try:
        crew.work()
    except BaseException:
        crew.stop()
        raise
    if crew.misuse is not None:
        raise crew.misuse
    return list(crew.statuses.values())


class _Crew:
    """The processes, and what is known of each."""

    def __init__(
        self, jobs: Sequence[Job], parallel: int, on_status: Show, devices: Sequence[str]
    ) -> None:
        self.statuses: dict[str, Status] = {
            job.name: {"name": job.name, "state": "waiting", "step": 0} for job in jobs
        }
        self.misuse: InputError | None = None
        self._waiting, self._parallel, self._show = list(jobs), parallel, on_status
        self._devices = devices
        self._running: dict[str, tuple[BaseProcess, Connection]] = {}
        self._context = multiprocessing.get_context("forkserver")

    def work(self) -> None:
        """Until all have ended."""
        if self._waiting:
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
            self._context.set_forkserver_preload(["decent.runtime.warm"])
        while self._waiting or self._running:
            while self._waiting and len(self._running) < self._parallel:
                self._start(self._waiting.pop(0))
            wait([process.sentinel for process, _ in self._running.values()], REFRESH_S)
            self._look()
            self._show(list(self.statuses.values()))

    def stop(self) -> None:
        """Ask all to stop; kill those that do not in time."""
        for process, _ in self._running.values():
            _signal(process, signal.SIGINT)
        end_s = time.monotonic() + GRACE_S
        for process, _ in self._running.values():
            with contextlib.suppress(KeyboardInterrupt):  # at a second Ctrl-C, kill
                process.join(max(0.0, end_s - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.join()

    def _start(self, job: Job) -> None:
        taken = [self.statuses[name]["device"] for name in self._running]
        device = min(self._devices, key=taken.count)
        job = replace(job, options=replace(job.options, device=device))
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=main, args=(job, theirs))
        process.start()
        theirs.close()
        self._running[job.name] = process, ours
        self.statuses[job.name].update(state="training", pid=process.pid, device=device)

    def _look(self) -> None:
        for name, (process, pipe) in list(self._running.items()):
            over = process.exitcode is not None  # before the pipe is read: nothing comes after
            with contextlib.suppress(EOFError, OSError):
                while pipe.poll(0):
                    self.statuses[name].update(pipe.recv())
            if over:
                del self._running[name]
                self._ended(self.statuses[name], process.exitcode or 0)

    def _ended(self, status: Status, code: int) -> None:
        status["state"] = "failed" if code else "done"
        if code < 0:
            status["what"] = f"killed by signal {-code} ({signal.Signals(-code).name})"
        elif code:
            status.setdefault("what", f"ended with exit code {code}")
        kind = getattr(errors, status.pop("kind", ""), None)
        if code == MISUSED and self.misuse is None:
            said = str(status["what"])
            self.misuse = kind(said) if isinstance(kind, type) else InputError(said)


def main(job: Job, pipe: Connection) -> None:
    """A process's life; its exit code says how it ended."""
    os.setpgrp()  # who started it alone hears Ctrl-C, and passes it on
    asked: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: asked.append(number))
    import torch

    from decent.experts import work

    torch.set_num_threads(1)
    told_s = 0.0

    def on_step(training: Any) -> None:
        nonlocal told_s
        if asked:
            raise KeyboardInterrupt
        steps = training.table.steps
        if time.monotonic() > told_s + REFRESH_S or training.steps == steps:
            told_s = time.monotonic()
            pipe.send({"step": training.steps, "steps": steps, "loss": training.loss})

    try:
        work.train(job.folder, job.name, on_step, job.again, job.options)
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(INTERRUPTED)
    except DecentError as error:
        pipe.send({"what": str(error), "kind": type(error).__name__})
        sys.exit(MISUSED if isinstance(error, InputError) else FAILED)


def _signal(process: BaseProcess, number: signal.Signals) -> None:
    if process.pid is not None and process.is_alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
