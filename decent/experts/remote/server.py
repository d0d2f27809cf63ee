"""Experts that answer others: what `decent serve` runs on an island.

One loop: take the requests that have come, put those of one expert, shape and kind together, ask
each expert once, send every caller its rows. A request is checked before an expert sees it; what
is wrong with it is told to whoever sent it, and nothing that comes over the wire ends the loop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decent.errors import PeerError
from decent.experts.guidance import Guided
from decent.experts.prediction import Model
from decent.experts.remote import protocol
from decent.experts.remote.protocol import Answer, Array, Hello, Message, Refuse, Request, Steps
from decent.experts.solvers import along, euler
from decent.transport.zeromq import ZeroMQ

AT_ONCE = 64
"""requests taken in one round"""
NOTE_EVERY_S = 60.0


class Served(NamedTuple):
    """An expert: its velocity on the linear path, and what its record says of it. `shape` is that
    of a sample; `classes` > 0: its condition is a label in −1 … classes − 1."""

    model: Model
    digest: str
    shape: tuple[int, ...]
    classes: int = 0


class Work(NamedTuple):
    """A request that has been checked. x [N, *S]; t [N], or the times of several steps."""

    route: bytes
    request: Request
    x: Array
    t: Array
    condition: Array | None

    @property
    def alike(self) -> tuple[Any, ...]:
        """The same for requests that one forward can answer."""
        c = None if self.condition is None else (self.condition.dtype, self.condition.shape[1:])
        steps = isinstance(self.request, Steps) and (self.request.times, self.request.guidance)
        return self.request.expert, steps, self.x.dtype, c


class Counts:
    """What a server has done."""

    requests = rows = forwards = refused = 0
    why = ""
    """the last refusal"""

    def __str__(self) -> str:
        text = f"{self.requests} requests, {self.rows} rows, {self.forwards} forwards"
        return text + (f", {self.refused} refused, last: {self.why}" if self.refused else "")


class Server:
    """`experts` by number, behind the listening end of `transport`."""

    def __init__(
        self, experts: Mapping[int, Served], transport: ZeroMQ, device: str = "cpu"
    ) -> None:
        self.experts, self.counts = dict(experts), Counts()
        self.address = transport.address
        self._transport, self._device = transport, device

    def run(self, note: Callable[[str], None]) -> None:
        """Answer until interrupted; `note` is told once in a while what has been done."""
        noted, next_s = str(self.counts), time.monotonic() + NOTE_EVERY_S
        while True:
            self.round(1.0)
            if time.monotonic() >= next_s and str(self.counts) != noted:
                noted, next_s = str(self.counts), time.monotonic() + NOTE_EVERY_S
                note(noted)

    def round(self, wait_s: float) -> None:
        """Answer what has come, waiting for so long at most."""
        self._transport.poller.poll(int(wait_s * 1000))
        for refusal in self._transport.refusals():
            self._count_refused(refusal.why)
        groups: dict[tuple[Any, ...], list[Work]] = {}
        for arrival in self._transport.receive(AT_ONCE):
            work = self._received(arrival.route, arrival.frames)
            if work is not None:
                groups.setdefault(work.alike, []).append(work)
        for group in groups.values():
            for part in _parts(group):
                self._answer(part)

    def _received(self, route: bytes, frames: list[Any]) -> Work | None:
        message = Message("", 0)
        try:
            message, arrays = protocol.decode(frames)
            if isinstance(message, Hello):
                served = tuple((k, expert.digest) for k, expert in self.experts.items())
                self._say(route, protocol.Welcome(message.job, message.seq, served))
                return None
            if not isinstance(message, Request):
                raise PeerError(f"a {type(message).__name__} is not for a server")
            return checked(route, message, arrays, self.experts)
        except PeerError as error:
            self._refuse(route, message, str(error))
            return None

    def _answer(self, group: list[Work]) -> None:
        """One forward for all; if it fails, one for each, so that only the guilty are refused."""
        try:
            answers = self._forward(group)
        except Exception as error:  # a model of the user's, inputs of a stranger's
            if len(group) > 1:
                for work in group:
                    self._answer([work])
            else:
                why = f"expert {group[0].request.expert} failed: {type(error).__name__}: {error}"
                self._refuse(group[0].route, group[0].request, why)
            return
        for work, answer in zip(group, answers, strict=True):
            self.counts.requests += 1
            self.counts.rows += len(answer)
            self._say(work.route, Answer(work.request.job, work.request.seq), [answer])

    def _forward(self, group: list[Work]) -> list[Array]:
        first = group[0]
        model = self.experts[first.request.expert].model
        x = self._tensor([work.x for work in group])
        condition = None
        if first.condition is not None:
            condition = self._tensor([w.condition for w in group if w.condition is not None])
        with torch.inference_mode():
            if isinstance(first.request, Steps):
                guided = Guided(model, first.request.guidance)
                result = along(first.request.times, euler, lambda x, t: guided(x, t, condition), x)
            else:
                result = model(x, self._tensor([work.t for work in group]), condition)
        self.counts.forwards += 1
        ends = np.cumsum([len(work.x) for work in group])[:-1]
        return np.split(result.to(x.dtype).cpu().numpy(), ends)

    def _tensor(self, arrays: list[Array]) -> Tensor:
        return torch.from_numpy(np.concatenate(arrays)).to(self._device)

    def _refuse(self, route: bytes, message: Message, why: str) -> None:
        self._count_refused(why)
        self._say(route, Refuse(message.job, message.seq, why[:500]))

    def _count_refused(self, why: str) -> None:
        self.counts.refused += 1
        self.counts.why = " ".join(why.split())[:200]

    def _say(self, route: bytes, message: Message, arrays: Iterable[Array] = ()) -> None:
        self._transport.answer(route, list(protocol.encode(message, list(arrays))))


def checked(
    route: bytes, request: Request, arrays: list[Array], experts: Mapping[int, Served]
) -> Work:
    """The request, fit for its expert. Raises PeerError, in words for whoever asks."""
    expert = experts.get(request.expert)
    if expert is None:
        raise PeerError(f"expert {request.expert} is not served here, but {sorted(experts)}")
    if request.digest != expert.digest:
        raise PeerError(f"expert {request.expert} is {expert.digest} here, not {request.digest}")
    several = isinstance(request, Steps)
    if not 2 - several <= len(arrays) <= 3 - several:
        raise PeerError(f"{len(arrays)} arrays in a request: expected x, t where it has one, c")
    x = arrays[0]
    t = np.array(request.times, "<f8") if isinstance(request, Steps) else arrays[1]
    condition = arrays[2 - several] if len(arrays) == 3 - several else None
    _check_states(x, expert.shape, request.most)
    if not several and (t.shape != x.shape[:1] or t.dtype != x.dtype):
        raise PeerError(f"t of {t.dtype} {t.shape} for x of {x.dtype} {x.shape}")
    if not ((t >= 0) & (t <= 1)).all():
        raise PeerError("a time outside 0 … 1")
    if isinstance(request, Steps) and not math.isfinite(request.guidance):
        raise PeerError(f"a guidance of {request.guidance}: expected a finite scale")
    if condition is not None:
        _check_condition(condition, len(x), expert.classes)
    return Work(route, request, x, t, condition)


def _check_states(x: Array, shape: tuple[int, ...], most: int) -> None:
    if x.shape[1:] != shape or not 1 <= len(x) <= most:
        raise PeerError(f"x of {x.shape}: expected 1 to {most} rows of {shape}")
    if x.dtype.kind != "f":
        raise PeerError(f"x of {x.dtype}: expected float16, float32 or float64")
    if not np.isfinite(x).all():
        raise PeerError("x is not finite")


def _check_condition(condition: Array, rows: int, classes: int) -> None:
    if condition.shape[:1] != (rows,):
        raise PeerError(f"a condition of {condition.shape} for {rows} rows")
    if condition.dtype.kind == "f":
        if not np.isfinite(condition).all():
            raise PeerError("a condition that is not finite")
    elif condition.ndim > 1 or not ((condition >= -1) & (condition < classes)).all():
        raise PeerError(f"labels beyond −1 … {classes - 1}, or more than one a row")


def _parts(group: list[Work]) -> Iterator[list[Work]]:
    """In their order, as many together as fit into one forward."""
    part: list[Work] = []
    for work in group:
        if part and sum(len(each.x) for each in part) + len(work.x) > work.request.most:
            yield part
            part = []
        part.append(work)
    yield part
