"""Handshakes that have failed, as ZeroMQ's socket monitors tell of them.

ZeroMQ connects, fails and tries again without a word to the socket's owner. What is known of why:
a key that the other end refuses and a mechanism that it does not speak are said outright, and
ZeroMQ gives up. A connection that is merely closed on us may mean that we hold the wrong key for
whoever listens there, or that a tunnel stands before a worker that has not started yet: ZeroMQ
tries again, and here it is told once it has happened `TIMES` times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

Cause = Literal["key", "mechanism", "closed"]
TIMES = 3
REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH
BROKEN = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
PASSED = zmq.EVENT_HANDSHAKE_SUCCEEDED


class Failure(NamedTuple):
    """Whom we dialled (None: we were dialled), and why nothing came of it."""

    dialled: int | None
    cause: Cause


@dataclass
class _Watched:
    socket: zmq.Socket[bytes]
    monitor: zmq.Socket[bytes]
    closed: int = 0


class Handshakes:
    """The monitors of one worker's sockets: of each dealer until it has come through, and of the
    router, but for the keys that we refuse there ourselves."""

    def __init__(self, poller: zmq.Poller) -> None:
        self._poller = poller
        self._watched: dict[int | None, _Watched] = {}

    def watch(self, socket: zmq.Socket[bytes], dialled: int | None) -> None:
        events = BROKEN if dialled is None else BROKEN | REFUSED | PASSED
        monitor = socket.get_monitor_socket(events)
        self._watched[dialled] = _Watched(socket, monitor)
        self._poller.register(monitor, zmq.POLLIN)

    def forget(self, dialled: int | None) -> None:
        """Before its socket is closed; nothing if it is not watched."""
        watched = self._watched.pop(dialled, None)
        if watched is not None:
            self._poller.unregister(watched.monitor)
            watched.socket.disable_monitor()
            watched.monitor.close(0)

    def failures(self) -> Iterator[Failure]:
        """What has failed since the last call."""
        for dialled, watched in list(self._watched.items()):
            while not watched.monitor.closed:
                try:
                    told = parse_monitor_message(watched.monitor.recv_multipart(zmq.NOBLOCK))
                except zmq.Again:
                    break
                if told["event"] == PASSED:
                    self.forget(dialled)
                else:
                    yield from self._failure(dialled, watched, told["event"], told["value"])

    @staticmethod
    def _failure(
        dialled: int | None, watched: _Watched, event: int, value: int
    ) -> Iterator[Failure]:
        if event == REFUSED:
            yield Failure(dialled, "key")
        elif dialled is not None and value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            yield Failure(dialled, "mechanism")
        else:
            watched.closed += 1
            if dialled is None or watched.closed == TIMES:
                yield Failure(dialled, "closed")
