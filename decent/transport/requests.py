"""Requests over ZeroMQ: one DEALER for each place that answers them.

ZeroMQ connects, and connects again, by itself; a monitor of each socket tells when a place can be
asked and when it no longer can, and why. Nothing is kept for a place that is not there: a request
is on its way or it is refused. Pings of ZeroMQ's own, which the other end answers however busy it
is, find out that a place is gone where the network does not say so. All of this belongs to one
thread; `wake` alone may be called by others.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from decent.errors import ConfigError
from decent.keys import Keys
from decent.transport.curve import OVERHEAD, Curve
from decent.transport.handshakes import BROKEN, PASSED, REFUSED
from decent.transport.zeromq import buffers, new_socket, receive, send

PING_MS, SILENT_MS = 2000, 10_000
AT_ONCE = 64
"""messages taken from one place before the next has its turn"""
RETRIED = zmq.EVENT_CONNECT_RETRIED
WATCHED = PASSED | REFUSED | BROKEN | RETRIED | zmq.EVENT_DISCONNECTED


class Event(NamedTuple):
    """Something that has happened at a place: it can be asked, it cannot, it has said something.
    `final`: ZeroMQ has given it up."""

    place: int
    kind: Literal["up", "down", "said"]
    frames: tuple[Any, ...] = ()  # buffers
    why: str = ""
    final: bool = False


class Requests:
    """The sockets of one caller, who shows `keys` to places that encrypt."""

    def __init__(self, keys: Keys | None = None) -> None:
        self._context = zmq.Context(io_threads=1)
        self._curve = None if keys is None else Curve(keys, lambda key: None)
        self._poller = zmq.Poller()
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self._monitors: dict[int, zmq.Socket[bytes]] = {}
        self._encrypted: set[int] = set()
        self._ringing = threading.Lock()
        self._ring, self._bell = socket.socketpair()
        for end in (self._ring, self._bell):
            end.setblocking(False)
        self._poller.register(self._bell, zmq.POLLIN)

    def dial(self, place: int, address: str, key: str | None, frame_bytes: int) -> None:
        """Connect to `address`, which has to hold `key` if there is one, and whose frames may be so
        large. Raises ConfigError where that is no address."""
        dealer = new_socket(self._context, zmq.DEALER, frame_bytes + OVERHEAD)
        for option, value in (
            (zmq.IMMEDIATE, 1), (zmq.HEARTBEAT_IVL, PING_MS), (zmq.HEARTBEAT_TIMEOUT, SILENT_MS),
        ):  # fmt: skip
            dealer.setsockopt(option, value)
        if key is not None:
            assert self._curve is not None
            self._curve.dial(dealer, key)
            self._encrypted.add(place)
        self._monitors[place] = dealer.get_monitor_socket(WATCHED)
        try:
            dealer.connect(address)
        except zmq.ZMQError as error:
            raise ConfigError(
                f"address {address[:80]}: {error.strerror}", "one such as tcp://10.0.0.1:5555"
            ) from None
        self._dealers[place] = dealer
        self._poller.register(dealer, zmq.POLLIN)
        self._poller.register(self._monitors[place], zmq.POLLIN)

    def send(self, place: int, frames: list[Any]) -> bool:
        """Whether the message is on its way."""
        return send(self._dealers[place], frames)

    def wake(self) -> None:
        """Have `events` return soon; from any thread, and nothing once all is closed."""
        with self._ringing, suppress(OSError):  # it is ringing already, or is no longer there
            self._ring.send(b"!")

    def events(self, wait_s: float) -> Iterator[Event]:
        """What has happened, waiting for so long at most. What a place said before it went comes
        before that it has gone."""
        self._poller.poll(max(0, int(wait_s * 1000) + 1))
        with suppress(BlockingIOError):
            self._bell.recv(4096)
        for place, dealer in self._dealers.items():
            told = list(self._told(place))
            yield from (event for event in told if event.kind == "up")
            for _ in range(AT_ONCE):
                frames = receive(dealer)
                if frames is None:
                    break
                yield Event(place, "said", tuple(buffers(frames)))
            yield from (event for event in told if event.kind == "down")

    def close(self) -> None:
        with self._ringing:
            self._ring.close()
        self._bell.close()
        self._context.destroy(linger=0)

    def _told(self, place: int) -> Iterator[Event]:
        """By the monitor; of quick changes, the last counts."""
        last = None
        while True:
            try:
                told = parse_monitor_message(self._monitors[place].recv_multipart(zmq.NOBLOCK))
            except zmq.Again:
                break
            event = self._in_words(place, told["event"], told["value"])
            if last is None or last.kind == "up" or event.kind == "up" or event.final:
                last = event
        if last is not None:
            yield last

    def _in_words(self, place: int, event: int, value: int) -> Event:
        if event == PASSED:
            return Event(place, "up")
        encrypted = place in self._encrypted
        if event == REFUSED:
            assert self._curve is not None
            why = f"refuses the key {self._curve.public}: it has to be among those allowed there"
            return Event(place, "down", why=why, final=True)
        if event & BROKEN and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            why = "does not encrypt, and a key is given for it" if encrypted else (
                "encrypts, and no key is given for it")  # fmt: skip
            return Event(place, "down", why=why, final=True)
        if event & BROKEN:
            why = "breaks off every handshake: check its address" + " and key" * encrypted
        elif event == RETRIED:
            why = "cannot be reached"
        else:
            why = "the connection is lost"
        return Event(place, "down", why=why)
