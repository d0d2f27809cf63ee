"""Stands between the two ends of edges: whoever dials across one reaches this, and not the peer.

For every edge one ROUTER listens, and for each connection to it one DEALER goes on to the real
address, under the dialler's own name, so that the peer takes it for the dialler (see `zeromq`): one
for signs of life, and one for the rest.
What passes is handed out and taken back; what becomes of it between is not decided here. Nothing
blocks: what cannot be sent is dropped. Only without CURVE, which would tell the one between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import zmq

from decent.transport.zeromq import BEATS

Edge = tuple[int, int]
HIGH_WATER = 1000


class Way(NamedTuple):
    """One direction of one connection: up is towards whom was dialled, the lower of the edge."""

    edge: Edge
    route: bytes
    up: bool


class Proxy:
    """`where` tells the present address of a worker, None while it has none."""

    def __init__(
        self, edges: Iterable[Edge], where: Callable[[int], str | None], frame_bytes: int
    ) -> None:
        self._context, self._where, self._frame_bytes = zmq.Context(), where, frame_bytes
        self._poller = zmq.Poller()
        self._routers = {edge: self._listening() for edge in edges}
        self._dealers: dict[tuple[Edge, bytes], tuple[str, zmq.Socket[bytes]]] = {}

    @property
    def addresses(self) -> dict[Edge, str]:
        """Where to dial across each edge."""
        return {
            edge: router.getsockopt_string(zmq.LAST_ENDPOINT)
            for edge, router in self._routers.items()
        }

    def wait(self, at_most_s: float) -> None:
        """Until something has come."""
        self._poller.poll(max(0, math.ceil(1000 * at_most_s)))

    def receive(self, at_most: int) -> Iterator[tuple[Way, list[bytes]]]:
        """What has come, at most so many messages of each connection."""
        for edge, router in self._routers.items():
            for route, *frames in _received(router, at_most):
                yield Way(edge, route, True), frames
        for (edge, route), (_, dealer) in list(self._dealers.items()):
            for frames in _received(dealer, at_most):
                yield Way(edge, route, False), frames

    def send(self, way: Way, frames: list[bytes]) -> bool:
        """Whether the message is on its way."""
        if not way.up:
            return _sent(self._routers[way.edge], [way.route, *frames])
        dealer = self._dealer(way.edge, way.route)
        return dealer is not None and _sent(dealer, frames)

    def refresh(self) -> None:
        """Let go of connections to where nobody is any more: a worker that restarts moves."""
        for (edge, route), (address, _) in list(self._dealers.items()):
            if self._where(edge[0]) != address:
                self._drop(edge, route)

    def close(self) -> None:
        self._context.destroy(linger=0)

    def _dealer(self, edge: Edge, route: bytes) -> zmq.Socket[bytes] | None:
        """The connection on. A dialler has one of each kind: under a new name it is new, and the
        old is let go of."""
        if (edge, route) in self._dealers:
            return self._dealers[edge, route][1]
        address = self._where(edge[0])
        if address is None:
            return None
        for at, known in list(self._dealers):
            if at == edge and known.endswith(BEATS) == route.endswith(BEATS):
                self._drop(edge, known)
        dealer = self._socket(zmq.DEALER)
        dealer.setsockopt(zmq.ROUTING_ID, route)
        dealer.connect(address)
        self._poller.register(dealer, zmq.POLLIN)
        self._dealers[edge, route] = address, dealer
        return dealer

    def _drop(self, edge: Edge, route: bytes) -> None:
        _, dealer = self._dealers.pop((edge, route))
        self._poller.unregister(dealer)
        dealer.close(0)

    def _listening(self) -> zmq.Socket[bytes]:
        router = self._socket(zmq.ROUTER)
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        router.setsockopt(zmq.ROUTER_HANDOVER, 1)
        router.bind("tcp://127.0.0.1:*")
        self._poller.register(router, zmq.POLLIN)
        return router

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        for option, value in (
            (zmq.SNDHWM, HIGH_WATER),
            (zmq.RCVHWM, HIGH_WATER),
            (zmq.MAXMSGSIZE, self._frame_bytes),
            (zmq.RECONNECT_IVL, 100),
            (zmq.RECONNECT_IVL_MAX, 2000),
        ):
            socket.setsockopt(option, value)
        return socket


def _received(socket: zmq.Socket[bytes], at_most: int) -> Iterator[list[bytes]]:
    for _ in range(at_most):
        try:
            yield socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _sent(socket: zmq.Socket[bytes], frames: list[Any]) -> bool:
    try:
        socket.send_multipart(frames, zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
            return False
        raise
    return True
