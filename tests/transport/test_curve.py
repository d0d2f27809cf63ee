"""CURVE between two workers over loopback: who comes in, who does not, and what each is told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from decent.keys import Keys
from decent.transport.curve import Curve, new_keys
from decent.transport.zeromq import Arrival, Refusal, ZeroMQ

ANY = "tcp://127.0.0.1:*"
FRAME = 4096
PATIENCE_S = 30.0
RUN = [new_keys() for _ in range(3)]
STRANGER = new_keys()
Make = Callable[..., ZeroMQ]


def holder(key: str) -> int | None:
    return next((i for i, each in enumerate(RUN) if each.public == key), None)


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ZeroMQ] = []

    def transport(me: int, keys: Keys | None = None, address: str = ANY) -> ZeroMQ:
        curve = None if keys is None else Curve(keys, holder)
        made.append(ZeroMQ(f"run/{me}/1", address, FRAME, curve))
        return made[-1]

    yield transport
    for each in made:
        with suppress(Exception):
            each.close(0)


class Seen:
    """What has come to each of some workers, all of whom are served while one waits."""

    def __init__(self, *workers: ZeroMQ) -> None:
        self.workers = workers
        self.arrivals: dict[ZeroMQ, list[Arrival]] = {each: [] for each in workers}
        self.refusals: dict[ZeroMQ, list[Refusal]] = {each: [] for each in workers}

    def until(self, condition: Callable[[], object], patience_s: float = PATIENCE_S) -> bool:
        end_s = time.monotonic() + patience_s
        while not condition() and time.monotonic() < end_s:
            for each in self.workers:
                each.poller.poll(10)
                self.arrivals[each] += each.receive(8)
                self.refusals[each] += each.refusals()
        return bool(condition())

    def arrival(self, at: ZeroMQ) -> Arrival:
        assert self.until(lambda: self.arrivals[at]), "nothing has come"
        return self.arrivals[at].pop(0)

    def refusal(self, at: ZeroMQ, final: bool = True) -> Refusal:
        """The first that is final or not, as wanted. Which end closes first is a matter of luck, so
        some that are not may come before one that is."""

        def wanted() -> list[Refusal]:
            return [each for each in self.refusals[at] if each.final == final]

        assert self.until(wanted), f"nothing was refused: {self.refusals[at]}"
        return wanted()[0]

    def others_come_in(self, low: ZeroMQ, make: Make) -> None:
        """A worker with the right key is served as if nothing had happened."""
        honest = make(1, RUN[1])
        honest.dial(0, low.address, RUN[0].public)
        assert honest.send(0, [b"honest"])
        self.workers = (*self.workers, honest)
        self.arrivals[honest], self.refusals[honest] = [], []
        assert [bytes(frame) for frame in self.arrival(low).frames] == [b"honest"]


@pytest.mark.parametrize("address", [ANY, "ipc://*"])
def test_the_right_key_comes_in(make: Make, address: str) -> None:
    low, high = make(0, RUN[0], address), make(1, RUN[1], address)
    seen = Seen(low, high)
    high.dial(0, low.address, RUN[0].public)
    assert high.send(0, [b"header", b"values"])
    came = seen.arrival(low)
    assert came.holder == 1
    assert came.route.endswith(b"/run/1/1/0")
    assert [bytes(frame) for frame in came.frames] == [b"header", b"values"]
    low.learn(1, came.route)
    assert low.send(1, [b"back"])
    back = seen.arrival(high)
    assert (back.dialled, back.holder) == (0, None)
    assert seen.refusals == {low: [], high: []}


def test_a_frame_of_the_largest_size_passes_and_no_larger_one(make: Make) -> None:
    low, high = make(0, RUN[0]), make(1, RUN[1])
    seen = Seen(low, high)
    high.dial(0, low.address, RUN[0].public)
    assert high.send(0, [b"x" * FRAME])
    assert len(seen.arrival(low).frames[0]) == FRAME
    assert high.send(0, [b"y" * (FRAME + 1)])
    seen.others_come_in(low, make)
    assert seen.arrivals[low] == []


def test_an_unknown_key_is_refused_and_told_so(make: Make) -> None:
    low, high = make(0, RUN[0]), make(1, STRANGER)
    seen = Seen(low, high)
    high.dial(0, low.address, RUN[0].public)
    high.send(0, [b"let me in"])
    refused, told = seen.refusal(low), seen.refusal(high)
    assert (refused.by, told.by) == (None, 0)
    assert f"the key {STRANGER.public}, shown from 127.0.0.1, is no worker's" in refused.why
    assert f"worker 0 at {low.address} refuses the key {STRANGER.public}" in told.why
    for secret in (STRANGER.secret, RUN[0].secret):
        assert secret not in refused.why + told.why
    seen.others_come_in(low, make)
    assert seen.arrivals[low] == []


def test_no_key_is_refused_and_told_so(make: Make) -> None:
    low, high = make(0, RUN[0]), make(1)
    seen = Seen(low, high)
    high.dial(0, low.address)
    high.send(0, [b"let me in"])
    assert seen.refusal(low).why == "a connection without a key, or meant for another's"
    told = seen.refusal(high)
    assert told.by == 0
    assert "encrypts, and this worker does not" in told.why
    seen.others_come_in(low, make)
    assert seen.arrivals[low] == []


def test_who_does_not_encrypt_is_not_spoken_to(make: Make) -> None:
    low, high = make(0), make(1, RUN[1])
    seen = Seen(low, high)
    high.dial(0, low.address, RUN[0].public)
    high.send(0, [b"secret"])
    told = seen.refusal(high)
    assert told.by == 0
    assert "does not encrypt, and this worker does" in told.why
    assert seen.arrivals[low] == []


def test_who_has_another_key_than_expected_is_not_spoken_to(make: Make) -> None:
    """It may also be a tunnel before a worker that has not started: so it is not final."""
    low, high = make(0, STRANGER), make(1, RUN[1])
    seen = Seen(low, high)
    high.dial(0, low.address, RUN[0].public)
    high.send(0, [b"secret"])
    told = seen.refusal(high, final=False)
    assert told.by == 0
    assert f"worker 0 at {low.address} breaks off every handshake" in told.why
    assert seen.refusal(low).by is None
    assert seen.arrivals[low] == []


def test_a_key_says_whose_it_is_whatever_the_name(make: Make) -> None:
    """Worker 2 calls itself worker 1; it can neither be taken for it, nor take its place."""
    low, high, liar = make(0, RUN[0]), make(1, RUN[1]), make(1, RUN[2])
    seen = Seen(low, high, liar)
    high.dial(0, low.address, RUN[0].public)
    assert high.send(0, [b"hello"])
    came = seen.arrival(low)
    low.learn(1, came.route)
    liar.dial(0, low.address, RUN[0].public)
    assert liar.send(0, [b"I am worker 1"])
    lie = seen.arrival(low)
    assert (came.holder, lie.holder) == (1, 2)
    assert lie.route != came.route
    assert low.send(1, [b"for worker 1"])
    assert bytes(seen.arrival(high).frames[0]) == b"for worker 1"
    assert seen.arrivals[liar] == []


def test_nothing_can_be_read_on_the_way(make: Make) -> None:
    for keys in ((None, None), (RUN[0], RUN[1])):
        low, high = make(0, keys[0]), make(1, keys[1])
        seen = Seen(low, high)
        with Wire(low.address) as wire:
            high.dial(0, wire.address, keys[0] and keys[0].public)
            assert high.send(0, [b"a telling header", b"telling values" * 50])
            seen.arrival(low)
        open_ = keys[0] is None
        assert (b"telling" in wire.heard) == open_
        assert (b"run/1/1/0" in wire.heard) == open_


class Wire:
    """Someone between two workers, who passes on what they say, and listens."""

    def __init__(self, address: str) -> None:
        self._to = ("127.0.0.1", int(address.rpartition(":")[2]))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self.heard = b""

    def __enter__(self) -> Wire:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _serve(self) -> None:
        with suppress(OSError):
            near, _ = self._server.accept()
            far = socket.create_connection(self._to)
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(a, b), daemon=True).start()

    def _pass(self, a: socket.socket, b: socket.socket) -> None:
        with suppress(OSError):
            while said := a.recv(65536):
                self.heard += said
                b.sendall(said)
