"""Frames between workers over ZeroMQ: one ROUTER that listens, one DEALER for each peer dialled.

An edge is one connection, used in both directions: the higher worker dials the lower, so a worker
that cannot be reached from outside can still dial. Nothing here ever blocks or piles up: what
cannot be sent now is dropped, and the exchange asks again.

Every connection introduces itself as `run/worker/epoch/peer dialled`; what arrives says on which
it came, so that a sender cannot speak in another's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from decent.errors import ConfigError

HIGH_WATER = 64
"""messages that may wait on a connection, each way"""


class Arrival(NamedTuple):
    """What came in: whose connection it is, as far as known, and how to answer right there."""

    dialled: int | None  # the peer we dialled; None if we were dialled
    route: bytes
    frames: list[Any]  # buffers


class ZeroMQ:
    """The sockets of one worker. `address` is where it listens, such as tcp://10.0.0.1:5555; a
    port of 0 or an ipc path is completed by the system. Raises ConfigError if it is taken."""

    def __init__(self, name: str, address: str, frame_bytes: int) -> None:
        self._context = zmq.Context(io_threads=1)
        self._name, self._frame_bytes = name.encode(), frame_bytes
        self._router = self._socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        try:
            self._router.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"address {address}: {error.strerror}",
                "an address of this machine that nothing else listens on",
                "set runtime.port = 0 to let the system choose, or free the port",
            ) from None
        self.address: str = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._dealers: dict[int, zmq.Socket[bytes]] = {}
        self._routes: dict[int, bytes] = {}
        self.poller = zmq.Poller()
        self.poller.register(self._router, zmq.POLLIN)

    def dial(self, peer: int, address: str) -> None:
        """Connect to `peer`; ZeroMQ retries in the background."""
        if peer in self._dealers:
            self.poller.unregister(self._dealers[peer])
            self._dealers.pop(peer).close()
        dealer = self._socket(zmq.DEALER)
        dealer.setsockopt(zmq.ROUTING_ID, self._name + b"/%d" % peer)
        dealer.connect(address)
        self._dealers[peer] = dealer
        self.poller.register(dealer, zmq.POLLIN)

    def knows(self, peer: int) -> bool:
        """Whether there is a way to `peer`."""
        return peer in self._dealers or peer in self._routes

    def learn(self, peer: int, route: bytes) -> None:
        """Answers to `peer` go back the way it came."""
        self._routes[peer] = route

    def send(self, peer: int, frames: list[Any]) -> bool:
        """Whether the message is on its way; a payload's memory must not change afterwards."""
        if peer in self._dealers:
            return self._send(self._dealers[peer], frames)
        return peer in self._routes and self.answer(self._routes[peer], frames)

    def answer(self, route: bytes, frames: list[Any]) -> bool:
        """Send to whoever dialled us on this route."""
        return self._send(self._router, [route, *frames])

    def receive(self, at_most: int) -> Iterator[Arrival]:
        """What has arrived, at most so many from each connection."""
        for _ in range(at_most):
            frames = self._receive(self._router)
            if frames is None:
                break
            yield Arrival(None, bytes(frames[0]), frames[1:])
        for peer, dealer in list(self._dealers.items()):
            for _ in range(at_most):
                frames = self._receive(dealer)
                if frames is None:
                    break
                yield Arrival(peer, b"", frames)

    def close(self, linger_ms: int = 1000) -> None:
        self._context.destroy(linger=linger_ms)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        for option, value in (
            (zmq.SNDHWM, HIGH_WATER),
            (zmq.RCVHWM, HIGH_WATER),
            (zmq.MAXMSGSIZE, self._frame_bytes),
            (zmq.RECONNECT_IVL, 100),
            (zmq.RECONNECT_IVL_MAX, 2000),
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.IPV6, 1),
        ):
            socket.setsockopt(option, value)
        return socket

    @staticmethod
    def _send(socket: zmq.Socket[bytes], frames: list[Any]) -> bool:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
            raise
        return True

    @staticmethod
    def _receive(socket: zmq.Socket[bytes]) -> list[Any] | None:
        try:
            return [frame.buffer for frame in socket.recv_multipart(zmq.NOBLOCK, copy=False)]
        except zmq.Again:
            return None
