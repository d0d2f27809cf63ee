"""Frames between workers over ZeroMQ: one ROUTER that listens, one DEALER for each peer dialled.

An edge is one connection, used in both directions: the higher worker dials the lower, so a worker
that cannot be reached from outside can still dial. Nothing here ever blocks or piles up: what
cannot be sent now is dropped, and the exchange asks again.

Signs of life have a second connection, made the same way to the same port once they are said, so
that they wait behind no payload: it is small, drops what it cannot send at once, and where it is
missing they go with the rest.

Every connection introduces itself as `run/worker/epoch/peer dialled`, and that of signs of life
with `/beat` behind it; what arrives says on which
it came, so that a sender cannot speak in another's name. With CURVE it also says whose key was
shown, and a connection's name begins with a word that nobody else can guess: whoever gives the name
of another's takes its place.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from decent.errors import ConfigError
from decent.transport.curve import OVERHEAD, Curve
from decent.transport.handshakes import Cause, Handshakes

HIGH_WATER = 256
"""messages that may wait on a connection, each way: more than a window of chunks"""
BEATS = b"/beat"
FRESH = 2
"""signs of life that may wait"""
WITH_US = {
    False: "encrypts, and this worker does not: encrypt at both (runtime.encrypt) or at neither",
    True: "does not encrypt, and this worker does: check the address, and encrypt at both",
}


class Arrival(NamedTuple):
    """What came in: whose connection it is, as far as known, and how to answer right there."""

    dialled: int | None  # the peer we dialled; None if we were dialled
    route: bytes
    frames: list[Any]  # buffers
    holder: int | None = None  # the worker whose key was shown to us, with CURVE

    @property
    def name(self) -> list[bytes]:
        """How whoever dialled us has introduced itself: run, worker, epoch, peer dialled."""
        return (b"///" + self.route.removesuffix(BEATS)).rsplit(b"/", 3)


class Refusal(NamedTuple):
    """A handshake that failed, in words: that of `by`, which we dialled, or one made with us.
    `final`: it will not be tried again; else it may yet succeed."""

    by: int | None
    why: str
    final: bool = True


class ZeroMQ:
    """The sockets of one worker. `address` is where it listens, such as tcp://10.0.0.1:5555; a
    port of 0 or an ipc path is completed by the system. Raises ConfigError if it is taken. Without
    `curve` nothing is encrypted, and nobody has to prove anything."""

    def __init__(
        self, name: str, address: str, frame_bytes: int, curve: Curve | None = None
    ) -> None:
        self._context = zmq.Context(io_threads=1)
        self._name, self._curve = name.encode(), curve
        self._frame_bytes = frame_bytes + (OVERHEAD if curve is not None else 0)
        self.poller = zmq.Poller()
        self._handshakes = Handshakes(self.poller)
        self._router = self._socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if curve is not None:
            curve.serve(self._router, self.poller)
            self._handshakes.watch(self._router, None)
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
        self._dialled: dict[int, str] = {}  # how to call whom we dialled, in words
        self._addresses: dict[int, tuple[str, str | None]] = {}  # and keys, of those we dialled
        self._routes: dict[int, bytes] = {}
        self._pulses: dict[int, zmq.Socket[bytes]] = {}  # dealers for signs of life
        self._pulse_routes: dict[int, bytes] = {}
        self.poller.register(self._router, zmq.POLLIN)

    def dial(self, peer: int, address: str, key: str | None = None) -> None:
        """Connect to `peer`, which with CURVE has to hold `key`; ZeroMQ retries by itself. Raises
        ConfigError where that is no address, or no key."""
        self._handshakes.forget(peer)
        for sockets in (self._dealers, self._pulses):
            if peer in sockets:
                self.poller.unregister(sockets[peer])
                sockets.pop(peer).close(linger=0)  # what waits is for where nobody is
        dealer = self._socket(zmq.DEALER)
        try:
            self._introduce(dealer, peer, key)
            self._handshakes.watch(dealer, peer)
            dealer.connect(address)
        except zmq.ZMQError as error:
            self._handshakes.forget(peer)
            dealer.close(0)
            raise ConfigError(
                f"worker {peer} at {address[:80]}: {error.strerror}",
                "an address such as tcp://10.0.0.1:5555, and a key where they encrypt",
                "check them in the topology's file",
            ) from None
        self._dealers[peer], self._dialled[peer] = dealer, f"worker {peer} at {address}"
        self._addresses[peer] = address, key
        self.poller.register(dealer, zmq.POLLIN)

    def _introduce(
        self, dealer: zmq.Socket[bytes], peer: int, key: str | None, kind: bytes = b""
    ) -> None:
        name = self._name + b"/%d" % peer + kind
        if self._curve is not None:
            assert key is not None
            self._curve.dial(dealer, key)
            name = secrets.token_hex(16).encode() + b"/" + name
        dealer.setsockopt(zmq.ROUTING_ID, name)

    def knows(self, peer: int) -> bool:
        """Whether there is a way to `peer`."""
        return peer in self._dealers or peer in self._routes

    def learn(self, peer: int, route: bytes) -> None:
        """Answers to `peer` go back the way it came."""
        routes = self._pulse_routes if route.endswith(BEATS) else self._routes
        routes[peer] = route

    def send(self, peer: int, frames: list[Any]) -> bool:
        """Whether the message is on its way; a payload's memory must not change afterwards."""
        if peer in self._dealers:
            return send(self._dealers[peer], frames)
        return peer in self._routes and self.answer(self._routes[peer], frames)

    def beat(self, peer: int, frames: list[Any]) -> bool:
        """Send a sign of life, on the connection that is for these if there is one."""
        if peer in self._dealers:
            return send(self._pulse(peer), frames)
        route = self._pulse_routes.get(peer)
        return (route is not None and self.answer(route, frames)) or self.send(peer, frames)

    def _pulse(self, peer: int) -> zmq.Socket[bytes]:
        """Dialled when it is first needed: the peer has been met by then."""
        if peer not in self._pulses:
            address, key = self._addresses[peer]
            pulse = self._pulses[peer] = self._socket(zmq.DEALER)
            self._introduce(pulse, peer, key, BEATS)
            pulse.setsockopt(zmq.IMMEDIATE, 1)
            pulse.setsockopt(zmq.SNDHWM, FRESH)
            pulse.connect(address)
            self.poller.register(pulse, zmq.POLLIN)
        return self._pulses[peer]

    def answer(self, route: bytes, frames: list[Any]) -> bool:
        """Send to whoever dialled us on this route."""
        return send(self._router, [route, *frames])

    def receive(self, at_most: int) -> Iterator[Arrival]:
        """What has arrived, at most so many from each connection."""
        for _ in range(at_most):
            frames = receive(self._router)
            if frames is None:
                break
            holder = int(frames[-1].get("User-Id")) if self._curve is not None else None
            yield Arrival(None, frames[0].bytes, buffers(frames[1:]), holder)
        for peer, dealer in (*self._pulses.items(), *self._dealers.items()):
            for _ in range(at_most):
                frames = receive(dealer)
                if frames is None:
                    break
                yield Arrival(peer, b"", buffers(frames))

    def refusals(self) -> Iterator[Refusal]:
        """What has failed of handshakes, and answers for those that wait for one."""
        if self._curve is not None:
            for why in self._curve.judge():
                yield Refusal(None, why)
        for peer, cause in self._handshakes.failures():
            if peer is None:
                yield Refusal(None, "a connection without a key, or meant for another's")
            else:
                yield Refusal(peer, self._in_words(peer, cause), final=cause != "closed")

    def _in_words(self, peer: int, cause: Cause) -> str:
        if cause == "mechanism":
            return f"{self._dialled[peer]} {WITH_US[self._curve is not None]}"
        if self._curve is None:
            return f"{self._dialled[peer]} breaks off every connection: check the address"
        if cause == "key":
            return (
                f"{self._dialled[peer]} refuses the key {self._curve.public} of this worker: "
                "it has to be among those of the run that it knows"
            )
        return (
            f"{self._dialled[peer]} breaks off every handshake: check that the key which this "
            "worker has for it is the right one, and the address"
        )

    def close(self, linger_ms: int = 1000) -> None:
        self._context.destroy(linger=linger_ms)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        return new_socket(self._context, kind, self._frame_bytes)


def new_socket(context: zmq.Context[Any], kind: int, frame_bytes: int) -> zmq.Socket[bytes]:
    """A socket that takes no larger frames, keeps few messages, and dials again with patience."""
    socket: zmq.Socket[bytes] = context.socket(kind)
    for option, value in (
        (zmq.SNDHWM, HIGH_WATER),
        (zmq.RCVHWM, HIGH_WATER),
        (zmq.MAXMSGSIZE, frame_bytes),
        (zmq.RECONNECT_IVL, 100),
        (zmq.RECONNECT_IVL_MAX, 2000),
        (zmq.TCP_KEEPALIVE, 1),
        (zmq.IPV6, 1),
    ):
        socket.setsockopt(option, value)
    return socket


def send(socket: zmq.Socket[bytes], frames: list[Any]) -> bool:
    """Whether the message is on its way; what cannot be sent now is not."""
    try:
        socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True


def receive(socket: zmq.Socket[bytes]) -> list[zmq.Frame] | None:
    """A message, if one has come."""
    try:
        return socket.recv_multipart(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None


def buffers(frames: list[zmq.Frame]) -> list[Any]:
    return [frame.buffer for frame in frames]
