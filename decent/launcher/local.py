"""Workers as processes of this machine: started out of one fork server, and watched.

The fork server imports torch once; each worker is a fork of it, with a communicator of its own.
One worker's death stops nobody, nor restarts anyone else: it is started again, as often as
`runtime.restarts` allows, or it is noted, and the others merge without it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from decent import errors
from decent.config import Config
from decent.errors import ConfigError, InputError
from decent.folder import read_json, worker_folder
from decent.launcher.resume import Run, begin, locked
from decent.worker import Span

Status = dict[str, Any]
REFRESH_S = 0.2
GRACE_S = 15.0
"""between asking the workers to stop and killing them"""
BEFORE = ("starting", "ready")


class Local:
    """The worker processes of one run."""

    def __init__(
        self, config: Config, out: Path, script: Path | None, arguments: list[str],
        resume: Run | None = None,
    ) -> None:  # fmt: skip
        self.config, self.out = config, out
        self.workers = config.make_topology().n
        self.origin_s = time.monotonic()
        self.status: list[Status] = [
            {"worker": me, "state": "starting", "step": 0, "steps": config.steps}
            for me in range(self.workers)
        ]
        self.faults: list[dict[str, Any]] = []
        self.restarts: list[dict[str, Any]] = []
        self._left = [config.runtime.restarts] * self.workers
        self._returning, self._late = set[int](), set[int]()
        self._processes: list[BaseProcess] = []
        self._pipes: dict[int, Connection] = {}
        self._task = script, tuple(arguments)
        self._context = multiprocessing.get_context("forkserver")
        given = (str(script.resolve()) if script else None), tuple(arguments)
        self._run = resume or Run(secrets.token_hex(8), self.workers, *given, config.apart)

    def start(self) -> None:
        os.environ["OMP_NUM_THREADS"] = str(self.config.runtime.threads)
        self._context.set_forkserver_preload(["decent.runtime.warm"])
        self.origin_s -= begin(self._run, self.out)
        for me in range(self.workers):
            lacks = bool(self._run.spans) and me not in self._run.spans and not self._run.apart
            span = self._run.newest(self.out, me) if lacks else self._run.spans.get(me)
            self._processes.append(self._process(me, span, rejoins=lacks))

    def _process(self, me: int, span: Span | None, rejoins: bool) -> BaseProcess:
        """A worker, started; one that `rejoins` while the others run."""
        from decent.runtime.child import Job, main

        ours, theirs = self._context.Pipe()
        job = Job(
            me, self._run.name, self.out, self.config, self.origin_s, *self._task, span, rejoins,
            returns=self._left[me] > 0,
        )  # fmt: skip
        process = self._context.Process(target=main, args=(job, theirs), daemon=False)
        process.start()
        theirs.close()
        self._pipes[me] = ours
        self.status[me].update(state="starting", pid=process.pid)
        return process

    def watch(self, on_status: Callable[[list[Status]], None]) -> None:
        """Until every worker has ended. Raises the InputError that a worker met, if one did."""
        running = dict(enumerate(self._processes))
        while running:
            wait([*self._pipes.values(), *(p.sentinel for p in running.values())], REFRESH_S)
            self._listen()
            for me in [me for me, process in running.items() if process.exitcode is not None]:
                code = running.pop(me).exitcode or 0
                if self._ended(me, code):
                    running[me] = self._processes[me]
            self._open_gate()
            self._dismiss()
            on_status(self.status)

    def _dismiss(self) -> None:
        """End those who are coming back when others are done already: they cannot be merged."""
        if any(status["state"] == "done" for status in self.status):
            for me in [me for me in self._returning if self.status[me]["state"] in BEFORE]:
                self._returning.discard(me)
                self._late.add(me)
                self._signal(signal.SIGKILL, os.killpg, [self._processes[me]])

    def _open_gate(self) -> None:
        """Let training begin at all workers at once, when the last living one is ready."""
        waiting = {status["state"] for status in self.status} & set(BEFORE)
        if waiting == {"ready"}:
            for me, pipe in self._pipes.items():
                if self.status[me]["state"] != "ready":
                    continue  # at work, while one comes back
                self.status[me]["state"] = "training"
                with contextlib.suppress(OSError):
                    pipe.send("go")

    def interrupt(self, on_status: Callable[[list[Status]], None]) -> None:
        """Ask all to stop; kill those that do not in time, or at once at a second Ctrl-C."""
        try:
            self._signal(signal.SIGINT)
            end_s = time.monotonic() + GRACE_S
            while any(p.is_alive() for p in self._processes) and time.monotonic() < end_s:
                wait([p.sentinel for p in self._processes if p.is_alive()], REFRESH_S)
                self._listen()
                on_status(self.status)
        except KeyboardInterrupt:
            pass
        self.kill()

    def kill(self) -> None:
        """End every worker with all that it has started, now."""
        self._signal(signal.SIGKILL, os.killpg)
        self._signal(signal.SIGKILL)  # one that has no group of its own yet
        for process in self._processes:
            process.join()

    def results(self) -> Iterator[dict[str, Any]]:
        """What the workers left; of one that died, what it last told."""
        for me in range(self.workers):
            try:
                yield read_json(worker_folder(self.out, me) / "result.json")
            except FileNotFoundError:
                yield {"id": me, "steps": self.status[me]["step"], "dead": True}

    def _signal(
        self, number: signal.Signals, send: Callable[[int, int], None] = os.kill,
        processes: list[BaseProcess] | None = None,
    ) -> None:  # fmt: skip
        for process in self._processes if processes is None else processes:
            if process.is_alive() and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    send(process.pid, number)

    def _listen(self) -> None:
        for me, pipe in list(self._pipes.items()):
            try:
                while pipe.poll(0):
                    self.status[me].update({k: v for k, v in pipe.recv().items() if v is not None})
            except (EOFError, OSError):
                del self._pipes[me]

    def _ended(self, me: int, code: int) -> bool:
        """Note it; whether the worker was started again."""
        self._listen()
        if code == 0:
            self.status[me]["state"] = "done"
            return False
        begun = self.status[me]["state"] not in BEFORE
        kind, what, final = self._cause(me, code)
        self.status[me]["state"] = "dead"
        if kind is not None and not begun:
            raise kind(what)
        noted = {"worker": me, "at_s": round(time.monotonic() - self.origin_s, 3), "what": what}
        again = not final and self._again(me)
        (self.restarts if again else self.faults).append(noted)
        return again

    def _again(self, me: int) -> bool:
        """Start a worker again that has died, if it may, and there is something to begin from. One
        kept apart goes on where it was, or begins anew, whatever the others do."""
        span, apart = self._run.newest(self.out, me), self._run.apart
        over = any(status["state"] == "done" for status in self.status)
        lost = over or (span is None and self.workers == 1)
        if not self._left[me] or (lost and not apart):
            return False
        self._left[me] -= 1
        if not apart:
            self._returning.add(me)
        for name in ("error.json", "result.json"):
            (worker_folder(self.out, me) / name).unlink(missing_ok=True)
        self._processes[me] = self._process(me, span, rejoins=not apart)
        return True

    def _cause(self, me: int, code: int) -> tuple[type[InputError] | None, str, bool]:
        """What kind of bad input it was, if it was; in words; whether it would be so again."""
        if me in self._late:
            return None, "it came back too late: others have been merged already", True
        if code < 0:
            return None, f"killed by signal {-code} ({signal.Signals(-code).name})", False
        home = worker_folder(self.out, me)
        try:
            said = read_json(home / "error.json")
        except FileNotFoundError:
            log = home / "log.txt"
            text = f"ended with exit code {code}: {_last_line(log)} (all of it in {log})"
            return None, text, False
        kind = getattr(errors, said["kind"], None)
        if kind is errors.PeerRefused:
            kind = ConfigError
        refused = isinstance(kind, type) and issubclass(kind, InputError)
        return (kind if refused else None), said["text"], refused or kind is errors.Declared


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.exists() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "without a word")


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """SIGTERM counts as Ctrl-C, where this is the main thread."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupted)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def launch(
    config: Config,
    out: Path,
    *,
    script: Path | None = None,
    arguments: list[str] | None = None,
    on_status: Callable[[list[Status]], None] | None = None,
    resume: Run | None = None,
) -> dict[str, Any]:
    """Run `config` (or `script` in its world) as processes here, in the run folder `out`; or go on
    with the run `resume` that is there.

    Returns the outcome: results, merged metrics, faults, wall_s, interrupted. Raises InputError,
    with nothing left running, for what the workers cannot use.
    """
    from decent.runtime.security import check_keys

    show = on_status or (lambda status: None)
    check_keys(config, config.make_topology())
    out.mkdir(parents=True, exist_ok=True)
    local = Local(config, out, script, arguments or [], resume)
    interrupted = False
    with locked(out), _sigterm():
        try:
            local.start()
            local.watch(show)
        except KeyboardInterrupt:
            interrupted = True
            local.interrupt(show)
        except BaseException:
            local.kill()
            raise
    results = list(local.results())
    return {
        "results": results,
        "merged": next(filter(None, (each.get("merged") for each in results)), {}),
        "merged_among": next(filter(None, (each.get("merged_among") for each in results)), []),
        "faults": local.faults,
        "restarts": local.restarts,
        "wall_s": time.monotonic() - local.origin_s,
        "interrupted": interrupted,
    }
