"""Payloads through shared memory, between workers of one machine; ZeroMQ carries the headers.

Every worker has an *arena* of slots in anonymous memory that it alone writes, and that its
neighbours read where it stands. Whatever it sends of chunk c to a peer, asking or answering, lies
in slot c mod `lanes` of that peer and direction: what was there before has been settled, as no more
chunks than that are under way (`Limits.window`). A generation beside each slot tells a reader who
is late all the same: it looks after it has read, drops the message if that has changed, and the
exchange asks again. So nothing has to be acknowledged and no slot can stay taken.

Neighbours also see the live parameters, row 0 of the worker's `Board`, and so an exchange need not
send a copy of these at all (see `worker.exchange`). Nothing of this memory has a name: it is
reached through its owner's file descriptors, and goes away with the last process that holds it,
also after kill −9. Where it is stands in its owner's `endpoint.json`, never in a message. Two
workers use it if they are in one process namespace of one machine and can open each other's; else
ZeroMQ alone.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from decent.worker.near import Near

REPEATS = 8
HEADER = 64  # a slot's generation, in a cache line of its own
BOOT = Path("/proc/sys/kernel/random/boot_id")

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Mark = tuple[int, int, int]
"""slot, generation, bytes: names a payload"""


@dataclass(frozen=True)
class Values:
    """Where the live values lie: `nbytes` from byte `start` of what is behind descriptor `fd`."""

    fd: int
    start: int
    nbytes: int


@dataclass(frozen=True)
class Place:
    """Where an arena can be reached: on which machine, by which descriptor of which process."""

    machine: str
    pid: int
    fd: int
    slots: int
    size: int  # bytes of a payload, at most
    values: Values | None = None

    @classmethod
    def of(cls, known: Any) -> Place | None:
        """From what `published` made; None where it is nothing of the kind."""
        try:
            values = None if known["values"] is None else Values(**known["values"])
            place = cls(**{**known, "values": values})
        except (TypeError, KeyError):
            return None
        numbers = [place.pid, place.fd, place.slots, place.size]
        numbers += asdict(values).values() if values else ()
        return place if all(type(each) is int and 0 <= each < 2**40 for each in numbers) else None

    def published(self) -> dict[str, Any]:
        return asdict(self)


def machine() -> str:
    """Names this machine, while it is up, and this process's view of others; "" if unknown."""
    try:
        return f"{BOOT.read_text().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _at_once(path: str, flags: int) -> int:
    """Opens what may by now be another's pipe, without waiting for anybody at its other end."""
    return os.open(path, flags | os.O_NONBLOCK)


class _Slots:
    """Slots in mapped memory: a generation, then the payload."""

    def __init__(self, memory: mmap.mmap, slots: int, size: int) -> None:
        self.slots, self.size, self._stride = slots, size, HEADER + size
        self._bytes = np.frombuffer(memory, np.uint8)
        self.start = int(self._bytes.ctypes.data)
        words = self._bytes[: slots * self._stride].reshape(slots, self._stride)[:, :8]
        self._generations = words.view(np.uint64)

    def generation(self, slot: int) -> int:
        return int(self._generations[slot, 0])

    def mark(self, slot: int, generation: int) -> None:
        self._generations[slot, 0] = generation

    def offset(self, slot: int) -> int:
        return slot * self._stride + HEADER

    def payload(self, slot: int, size: int) -> Bytes:
        start = self.offset(slot)
        return self._bytes[start : start + size]


class Arena:
    """This worker's own slots. `place` is None where the system has no such memory."""

    def __init__(self, size: int, slots: int, values: Values | None = None) -> None:
        self.place: Place | None = None
        size = -(-size // HEADER) * HEADER
        if sys.platform != "linux" or not machine():
            return
        self._fd = os.memfd_create("decent-arena")
        length = slots * (HEADER + size)
        os.ftruncate(self._fd, length)
        self._memory = _Slots(mmap.mmap(self._fd, length), slots, size)
        self.place = Place(machine(), os.getpid(), self._fd, slots, size, values)

    def open(self, slot: int, size: int) -> Bytes:
        """Memory to write a payload to; what was there is void from now on."""
        generation = self._memory.generation(slot)
        self._memory.mark(slot, generation + 1 + generation % 2)  # odd: being written
        return self._memory.payload(slot, size)

    def put(self, slot: int, payload: Bytes) -> Mark:
        """The payload's bytes in this slot, where they may stand already; what names them."""
        data = payload.__array_interface__["data"][0]
        if data != self._memory.start + self._memory.offset(slot):
            np.copyto(self.open(slot, payload.nbytes), payload)
        generation = self._memory.generation(slot)
        generation += generation % 2
        self._memory.mark(slot, generation)
        return slot, generation, payload.nbytes


class Neighbour:
    """A peer's arena, opened for reading. Raises OSError where it cannot be."""

    def __init__(self, place: Place) -> None:
        if place.machine != machine() or not machine():
            raise OSError(f"the arena of process {place.pid} is on another machine")
        length = place.slots * (HEADER + place.size)
        self._memory = _Slots(_mapped(place.pid, place.fd, length), place.slots, place.size)
        self._values: Bytes | None = None
        if place.values is not None:
            length = place.values.start + place.values.nbytes
            memory = _mapped(place.pid, place.values.fd, length, more=True)
            self._values = np.frombuffer(memory, np.uint8)[place.values.start :]

    def take(self, mark: Mark) -> tuple[Bytes, Callable[[], bool]] | None:
        """The payload, where it stands, and what tells whether it is still the same; or None."""
        slot, generation, size = mark
        memory = self._memory
        if not (slot < memory.slots and 0 < size <= memory.size):
            return None
        if not generation or generation % 2 or memory.generation(slot) != generation:
            return None
        return memory.payload(slot, size), lambda: memory.generation(slot) == generation

    def values(self, start: int, stop: int) -> Bytes | None:
        """Those bytes of the live values, as they are when they are read; None if not to be had."""
        if self._values is None or not 0 <= start < stop <= self._values.size:
            return None
        return self._values[start:stop]


def _mapped(pid: int, fd: int, length: int, more: bool = False) -> mmap.mmap:
    """`length` bytes behind another process's descriptor, for reading."""
    with open(f"/proc/{pid}/fd/{fd}", "rb", opener=_at_once) as file:
        found = os.fstat(file.fileno()).st_size
        if found != length and not (more and found > length):
            raise OSError(f"descriptor {fd} of process {pid} is no arena")
        return mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ)


class Shortcuts(Near):
    """Sends payloads through memory to those of `peers` that can be reached so. `locate(peer)` says
    where a peer's arena is, or None; `lanes`: chunks under way to a peer, at most."""

    def __init__(
        self,
        size: int,
        peers: Sequence[int],
        lanes: int,
        locate: Callable[[int], Place | None],
        values: Values | None = None,
    ) -> None:
        self._locate, self._size, self._lanes = locate, size, lanes
        self._first = {peer: 2 * lanes * k for k, peer in enumerate(sorted(peers))}
        self.arena = Arena(size, max(1, 2 * lanes * len(peers)), values)
        self._open: dict[int, Neighbour | None] = {}
        self._sent: dict[tuple[int, bool], tuple[int, int]] = {}
        self._repeats: dict[int, int] = {}

    def forget(self, peer: int) -> None:
        """It has restarted: look again."""
        self._open.pop(peer, None)
        self._repeats.pop(peer, None)

    def sees(self, peer: int) -> bool:
        """Whether it can see our live values, as far as we can tell: we see its own."""
        place = self.arena.place
        return place is not None and place.values is not None and self._peer(peer) is not None

    def memory(self, peer: int, answer: bool, chunk: int, nbytes: int) -> Bytes:
        if nbytes > self._size or self._peer(peer) is None:
            return super().memory(peer, answer, chunk, nbytes)
        return self.arena.open(self._slot(peer, answer, chunk), nbytes)

    def outgoing(
        self, peer: int, answer: bool, key: tuple[int, int], payload: Bytes
    ) -> Mark | None:
        """What stands for the payload; None: it is to go over the wire. So does what is sent again,
        `key` = (exchange, chunk) tells: if that happens often, the peer cannot see our memory."""
        again = key <= self._sent.get((peer, answer), (-1, -1))
        self._sent[peer, answer] = max(key, self._sent.get((peer, answer), key))
        self._repeats[peer] = self._repeats.get(peer, 0) + again
        if again or self._repeats[peer] > REPEATS or self._peer(peer) is None:
            return None
        return self.arena.put(self._slot(peer, answer, key[1]), payload)

    def find(self, peer: int | None, mark: Mark) -> tuple[Bytes, Callable[[], bool]] | None:
        """The payload that `mark` of a peer names; None if it is gone, or never was there."""
        neighbour = None if peer is None else self._peer(peer)
        return None if neighbour is None else neighbour.take(mark)

    def values(self, peer: int | None, start: int, stop: int) -> Bytes | None:
        """Those bytes of the peer's live values."""
        neighbour = None if peer is None else self._peer(peer)
        return None if neighbour is None else neighbour.values(start, stop)

    def _slot(self, peer: int, answer: bool, chunk: int) -> int:
        return self._first[peer] + answer * self._lanes + chunk % self._lanes

    def _peer(self, peer: int) -> Neighbour | None:
        if peer not in self._open and peer in self._first and self.arena.place is not None:
            place = self._locate(peer)
            if place is None:
                return None  # it has not said yet
            try:
                self._open[peer] = Neighbour(place)
            except (OSError, ValueError):
                self._open[peer] = None  # it is elsewhere
        return self._open.get(peer)
