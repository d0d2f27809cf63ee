"""The thread between the processes of a run: it carries their messages and injects the faults.

Faults on edges act on the messages that pass (see `links`), faults on workers are signals: SIGSTOP
and SIGCONT for a pause, SIGKILL. The clock of the faults starts when training does. Each fault is
written to `faults.jsonl` as it is injected, `s` seconds after the start of the run, as in traces;
one that came too late, to a worker that is no longer there, is written as `missed`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from decent.chaos.faults import PROCESSES, Fault
from decent.chaos.links import Link
from decent.errors import RuntimeFault
from decent.folder import Journal
from decent.runtime.rendezvous import Rendezvous
from decent.topology import Topology
from decent.topology.edges import Edge
from decent.transport.proxy import Proxy, Way

FILE = "faults.jsonl"
TURN_S = 0.05
REFRESH_S = 0.5
BATCH = 32
STOP_S = 10.0
BEFORE, THERE = ("starting", "ready"), ("training", "merging")
Status = Mapping[str, Any]


class Storm:
    """Entered before the workers start; `watch` is told how they are, a few times a second."""

    def __init__(
        self, faults: Sequence[Fault], topology: Topology, run: Path, frame_bytes: int, seed: int
    ) -> None:
        self.injected: list[Fault] = []
        self.missed: list[Fault] = []
        self.killed: list[int] = []
        self._links: dict[Edge, Link[Way]] = {edge: Link(seed) for edge in topology.edges}
        self._coming = deque(faults)
        self._statuses: Sequence[Status] = []
        self._stopped: dict[int, float] = {}  # process → when it may go on
        self._start_s = time.monotonic()
        self._begun_s: float | None = None
        self._journal = Journal(run / FILE)
        self._rendezvous = Rendezvous(run)
        self._proxy = Proxy(topology.edges, self._rendezvous.lookup, frame_bytes)
        for edge, address in self._proxy.addresses.items():
            self._rendezvous.publish_via(*edge, address)
        self._refresh_s = 0.0
        self._failure: BaseException | None = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="storm", daemon=True)

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Everything goes on that was stopped, and nothing is carried any more."""
        self._ends.set()
        self._thread.join(STOP_S)
        self._journal.close()

    def watch(self, statuses: Sequence[Status]) -> None:
        if self._failure is not None:
            raise RuntimeFault(f"the proxy has failed: {self._failure!r}") from self._failure
        self._statuses = [dict(each) for each in statuses]
        if self._begun_s is None and not any(each["state"] in BEFORE for each in statuses):
            self._begun_s = time.monotonic()

    def messages(self) -> dict[str, int]:
        """How many came by, and how many found a queue full."""
        links = self._links.values()
        return {
            "passed": sum(link.passed for link in links),
            "dropped": sum(link.dropped for link in links),
        }

    def hits(self) -> Counter[str]:
        """Kind → messages met."""
        return sum((link.hits for link in self._links.values()), Counter[str]())

    # in the thread

    def _run(self) -> None:
        try:
            while not self._ends.is_set():
                self._turn()
        except BaseException as error:
            self._failure = error
        finally:
            self._resume(float("inf"))
            self._proxy.close()

    def _turn(self) -> None:
        now_s = time.monotonic()
        self._inject(now_s)
        self._resume(now_s)
        if now_s >= self._refresh_s:
            self._refresh_s = now_s + REFRESH_S
            self._proxy.refresh()
        next_s = min(link.next_s() for link in self._links.values())
        self._proxy.wait(min(next_s - now_s, TURN_S))
        now_s = time.monotonic()
        for way, frames in self._proxy.receive(BATCH):
            self._links[way.edge].take(way, frames, now_s)
        for link in self._links.values():
            for way, frames in link.due(now_s):
                self._proxy.send(way, frames)

    def _inject(self, now_s: float) -> None:
        if self._begun_s is None:
            return
        while self._coming and self._begun_s + self._coming[0].at_s <= now_s:
            fault = self._coming.popleft()
            there = self._act(fault, now_s)
            (self.injected if there else self.missed).append(fault)
            self._note(fault, now_s, there)

    def _act(self, fault: Fault, now_s: float) -> bool:
        """Whether it met anyone."""
        if fault.edge is not None:
            self._links[fault.edge].start(fault, now_s)
            return any(self._statuses[me]["state"] in THERE for me in fault.edge)
        assert fault.worker is not None
        processes = self._processes(fault.worker, fault.target)
        if fault.kind == "kill":
            if processes:
                self.killed.append(fault.worker)
            return self._signal(processes, signal.SIGKILL)
        for process in processes:
            self._stopped[process] = max(self._stopped.get(process, 0.0), now_s + fault.span_s)
        return self._signal(processes, signal.SIGSTOP)

    def _processes(self, worker: int, target: str) -> list[int]:
        """Those of a worker that is there, and has not been killed."""
        status = self._statuses[worker]
        if status["state"] not in THERE or worker in self.killed:
            return []
        known = {"training": status.get("pid"), "communicator": status.get("communicator")}
        names = PROCESSES[:2] if target == "both" else (target,)
        return [pid for pid in map(known.get, names) if pid is not None]

    @staticmethod
    def _signal(processes: Sequence[int], number: signal.Signals) -> bool:
        """Whether one has had it."""
        had = False
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)
                had = True
        return had

    def _resume(self, now_s: float) -> None:
        for process, until_s in list(self._stopped.items()):
            if until_s <= now_s:
                del self._stopped[process]
                self._signal([process], signal.SIGCONT)

    def _note(self, fault: Fault, now_s: float, there: bool) -> None:
        missed = {} if there else {"missed": True}
        self._journal({"s": round(now_s - self._start_s, 4), **fault.as_dict(), **missed})
        self._journal.flush()
