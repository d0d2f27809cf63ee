"""The caller's connections to islands.

One thread owns the sockets. Each island is greeted whenever a connection to it stands, and asked
only after it has said that it serves the expected weights. A request goes to the first island of
its expert that is there; when that one refuses, is lost, answers what cannot be an answer, or has
not answered by the deadline, it goes to the next, and after `hedge_s` to the next as well. An
answer is a stranger's: shape, kind and finiteness are checked. No island left: `ExpertLost`. So
every request ends, after as many deadlines as the expert has islands at the latest.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from decent.errors import (
    ConfigError,
    ExpertLost,
    PeerError,
    PeerRefused,
    ProtocolError,
    RuntimeFault,
)
from decent.experts.remote import protocol
from decent.experts.remote.protocol import (
    Answer,
    Array,
    Hello,
    Message,
    Refuse,
    Request,
    Welcome,
)
from decent.keys import Keys
from decent.transport.requests import Event, Requests

IDLE_S, GREET_S = 1.0, 0.01
BUSY = "takes no more requests now"


@dataclass
class Island:
    """An address, the experts expected there with their digests, and how it stands with it."""

    address: str
    key: str | None
    experts: dict[int, str]
    ready: bool = False
    why: str = "does not answer"
    final: bool = False
    """it is no use to wait"""

    def judge(self, welcome: Welcome) -> str:
        """What is wrong with the experts that it serves; '' if nothing is."""
        there = dict(welcome.experts)
        for k, digest in self.experts.items():
            if k not in there:
                return f"does not serve expert {k}, but {sorted(there)}"
            if there[k] != digest:
                return f"serves expert {k} with the digest {there[k]}, expected {digest}"
        return ""


@dataclass
class Pending:
    """A request that has no answer yet. `like`: what the answer has to be like."""

    request: Request
    frames: list[bytes]
    like: Tensor
    islands: deque[int]
    future: Future[Tensor]
    asked: dict[int, float] = field(default_factory=dict)
    """islands asked, and until when each has time"""
    hedge_at: float = math.inf
    """when the next is asked as well"""
    reasons: list[str] = field(default_factory=list)


class Caller:
    """The connections to `islands`. Times in seconds; `hedge_s` none: one island at a time."""

    def __init__(
        self,
        islands: Sequence[Island],
        frame_bytes: int = protocol.LARGEST,
        keys: Keys | None = None,
        deadline_s: float = 30.0,
        hedge_s: float | None = None,
    ) -> None:
        self.islands, self.job = list(islands), secrets.token_hex(8)
        self._deadline_s, self._hedge_s = deadline_s, hedge_s
        self._sockets = Requests(keys)
        self._inbox: SimpleQueue[Pending] = SimpleQueue()
        self._pending: dict[int, Pending] = {}
        self._failed: set[int] = set()
        self._ungreeted: set[int] = set()
        self._seq, self._lock = 0, threading.Lock()
        self._closing, self._closed = False, threading.Event()
        self._met = threading.Condition()
        for place, island in enumerate(self.islands):
            self._sockets.dial(place, island.address, island.key, frame_bytes)
        self._thread = threading.Thread(target=self._run, name="remote experts", daemon=True)
        self._thread.start()

    def meet(self, patience_s: float) -> None:
        """Wait for all islands, so long at most. Raises ConfigError for one that cannot be used;
        one that is not there is not asked until it is."""
        with self._met:
            self._met.wait_for(
                lambda: all(each.ready or each.final for each in self.islands), patience_s
            )
            for each in self.islands:
                if each.final:
                    raise ConfigError(
                        f"{each.address} {each.why}", "the experts of this ensemble, by their keys",
                        "correct the file of hosts, or serve the right experts there",
                    )  # fmt: skip

    def ask(
        self, request: Request, arrays: Sequence[Array], like: Tensor, islands: Sequence[int]
    ) -> Future[Tensor]:
        """Send a request to the first of `islands` that has an answer; job and seq are put in
        here. The future ends with an answer like `like`, or with ExpertLost."""
        with self._lock:
            self._seq += 1
            request = msgspec.structs.replace(request, job=self.job, seq=self._seq)
        future: Future[Tensor] = Future()
        future.set_running_or_notify_cancel()
        frames = protocol.encode(request, arrays)
        self._inbox.put(Pending(request, frames, like, deque(islands), future))
        if self._closed.is_set():
            self._fail_all()
        else:
            self._sockets.wake()
        return future

    def close(self) -> None:
        """End all connections; what has no answer yet fails."""
        self._closing = True
        if not self._closed.is_set():
            self._sockets.wake()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closing:
                for event in self._sockets.events(self._rest_s()):
                    self._happened(event)
                self._greet()
                self._take_in()
                self._look_at_the_clock()
        finally:
            self._closed.set()
            self._sockets.close()
            self._fail_all()

    def _fail_all(self) -> None:
        for pending in [*self._pending.values(), *self._waiting()]:
            pending.future.set_exception(RuntimeFault("the connections to experts are closed"))
        self._pending.clear()

    def _waiting(self) -> Iterator[Pending]:
        with suppress(Empty):
            while True:
                yield self._inbox.get_nowait()

    def _rest_s(self) -> float:
        """Until the next deadline."""
        times = [min([*p.asked.values(), p.hedge_at]) for p in self._pending.values()]
        idle_s = GREET_S if self._ungreeted else IDLE_S
        return min(idle_s, max(0.0, min(times, default=math.inf) - time.monotonic()))

    def _greet(self) -> None:
        """A connection is known to stand a moment before it takes messages."""
        for place in list(self._ungreeted):
            if self._sockets.send(place, list(protocol.encode(Hello(self.job, 0)))):
                self._ungreeted.discard(place)

    def _take_in(self) -> None:
        for pending in self._waiting():
            self._pending[pending.request.seq] = pending
            pending.islands = deque(sorted(pending.islands, key=lambda p: p in self._failed))
            self._next(pending)

    def _next(self, pending: Pending) -> None:
        """Ask one island more; if there is none and nobody is at work on it, it has failed."""
        pending.hedge_at = math.inf
        while pending.islands:
            place = pending.islands.popleft()
            island, now = self.islands[place], time.monotonic()
            if island.ready and self._sockets.send(place, list(pending.frames)):
                pending.asked[place] = now + self._deadline_s
                if self._hedge_s is not None and pending.islands:
                    pending.hedge_at = now + self._hedge_s
                return
            pending.reasons.append(f"{island.address} {island.why if not island.ready else BUSY}")
        if not pending.asked:
            del self._pending[pending.request.seq]
            pending.future.set_exception(ExpertLost("; ".join(pending.reasons)))

    def _failed_at(self, place: int, pending: Pending, why: str) -> None:
        self._failed.add(place)
        del pending.asked[place]
        pending.reasons.append(f"{self.islands[place].address} {why}")
        if not pending.asked:
            self._next(pending)

    def _all_failed_at(self, place: int, why: str) -> None:
        for pending in [p for p in self._pending.values() if place in p.asked]:
            self._failed_at(place, pending, why)

    def _look_at_the_clock(self) -> None:
        now = time.monotonic()
        for pending in list(self._pending.values()):
            for place in [p for p, until in pending.asked.items() if now >= until]:
                self._failed_at(place, pending, f"has not answered in {self._deadline_s:g} s")
            if now >= pending.hedge_at:
                self._next(pending)

    def _happened(self, event: Event) -> None:
        if event.kind == "up":
            self._ungreeted.add(event.place)
        elif event.kind == "down":
            self._ungreeted.discard(event.place)
            self._stands(event.place, False, event.why, event.final)
            self._all_failed_at(event.place, event.why)
        else:
            self._said(event.place, event.frames)

    def _stands(self, place: int, ready: bool, why: str = "", final: bool = False) -> None:
        with self._met:
            island = self.islands[place]
            island.ready, island.why, island.final = ready, why, final
            self._met.notify_all()
        if ready:
            self._failed.discard(place)

    def _said(self, place: int, frames: Sequence[Any]) -> None:
        try:
            message, arrays = protocol.decode(frames)
        except PeerRefused as error:
            self._stands(place, False, f"cannot be understood: {error}", final=True)
            return
        except ProtocolError as error:
            self._all_failed_at(place, f"sends what cannot be read: {error}")
            return
        if message.seq:
            self._answered(place, message, arrays)
        elif isinstance(message, Welcome):
            wrong = self.islands[place].judge(message)
            self._stands(place, not wrong, wrong, final=bool(wrong))
        elif isinstance(message, Refuse) and self.islands[place].ready:
            self._all_failed_at(place, f"refuses: {message.reason}")
        elif isinstance(message, Refuse):
            self._stands(place, False, f"refuses: {message.reason}", final=True)

    def _answered(self, place: int, message: Message, arrays: list[Array]) -> None:
        pending = self._pending.get(message.seq)
        if message.job != self.job or pending is None or place not in pending.asked:
            return  # another island was faster
        try:
            answer = judged(message, arrays, pending.like)
        except PeerError as error:
            self._failed_at(place, pending, str(error))
            return
        self._failed.discard(place)
        del self._pending[message.seq]
        pending.future.set_result(answer)


def judged(message: Message, arrays: list[Array], like: Tensor) -> Tensor:
    """The tensor of an answer, on the device of `like`. Raises PeerError if it is not one of the
    same shape and kind, finite throughout."""
    if isinstance(message, Refuse):
        raise PeerRefused(f"refuses: {message.reason}")
    if not isinstance(message, Answer) or len(arrays) != 1:
        raise ProtocolError(f"answers {type(message).__name__} with {len(arrays)} arrays")
    array, dtype = arrays[0], str(like.dtype).removeprefix("torch.")
    if array.shape != tuple(like.shape) or array.dtype.name != dtype:
        expected = f"{dtype} {tuple(like.shape)}"
        raise ProtocolError(f"answers {array.dtype} {array.shape}, expected {expected}")
    if not np.isfinite(array).all():
        raise ProtocolError("answers values that are not finite")
    return torch.from_numpy(array.copy()).to(like.device)
