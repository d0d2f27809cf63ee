"""Packets of one worker in and out of frames, and what of them goes through shared memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from decent.runtime import link, security
from decent.runtime.board import Board
from decent.runtime.rendezvous import Rendezvous
from decent.transport.shared import Place, Shortcuts, Values
from decent.transport.zeromq import Arrival
from decent.worker import frames
from decent.worker import messages as m
from decent.worker.near import Near


class Wire:
    """The wire of `spec`'s worker, whose state is on `board`."""

    def __init__(self, spec: link.Spec, board: Board, rendezvous: Rendezvous) -> None:
        self._spec, self._rendezvous = spec, rendezvous
        self._peers = list(spec.topology.neighbours(spec.me))
        self._dtype = np.dtype(spec.dtype)
        self._chunk_bytes = spec.limits.chunk * self._dtype.itemsize
        self._values_bytes = spec.values * self._dtype.itemsize
        self.shortcuts = self._shortcuts(board) if spec.shared_memory else None
        self.near: Near = self.shortcuts or Near()

    def _shortcuts(self, board: Board) -> Shortcuts:
        values = Values(board.fd, board.start, self._values_bytes)
        lanes = self._spec.limits.window
        return Shortcuts(self._chunk_bytes, self._peers, lanes, self._locate, values)

    def _locate(self, peer: int) -> Place | None:
        found = self._rendezvous.arena(peer)
        return None if found is None else Place.of(found)

    @property
    def place(self) -> dict[str, Any] | None:
        """What others have to know of our shared memory."""
        place = None if self.shortcuts is None else self.shortcuts.arena.place
        return None if place is None else place.published()

    def encode(self, packet: m.Packet) -> list[Any]:
        """The frames to send."""
        message, mark = packet.message, None
        if self.shortcuts is not None and isinstance(message, m.Coded):
            assert packet.payload is not None
            answer, key = not isinstance(message, m.Request), (message.seq, message.chunk)
            mark = self.shortcuts.outgoing(message.dst, answer, key, packet.payload)
        return frames.encode(packet, self._spec.run, mark)

    def decode(self, arrival: Arrival) -> m.Packet:
        """What has arrived. Raises PeerRefused, ProtocolError."""
        spec, near = self._spec, self.shortcuts
        sender = self._claimed(arrival)
        find = None if near is None else partial(near.find, sender)
        packet = frames.decode(arrival.frames, spec.run, self._dtype, spec.limits.chunk, find)
        security.check_sender(arrival, packet.message, spec.me)
        if isinstance(packet.message, m.Look):
            return packet._replace(payload=self._seen(sender, packet.message.chunk))
        return packet

    def _seen(self, peer: int | None, chunk: int) -> Any:
        """The peer's live values of a chunk, as bytes; None where they cannot be seen."""
        start = chunk * self._chunk_bytes
        stop = min(self._values_bytes, start + self._chunk_bytes)
        return None if self.shortcuts is None else self.shortcuts.values(peer, start, stop)

    def _claimed(self, arrival: Arrival) -> int | None:
        """The neighbour whose connection this says it is."""
        if arrival.dialled is not None:
            return arrival.dialled
        run, source = arrival.name[:2]
        if not run.endswith(b"/" + self._spec.run.encode()):
            return None
        return next((peer for peer in self._peers if source == b"%d" % peer), None)
