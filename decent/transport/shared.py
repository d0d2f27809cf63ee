"""Payloads through shared memory, between workers of one machine; ZeroMQ carries the headers.

Every worker has an *arena*, a ring of slots in anonymous memory that it alone writes. To send a
payload is to copy it into the next slot and to name slot and generation in a small frame; to
receive one is to copy it out and look whether the generation is still the same. So nothing has to
be acknowledged, no slot can stay taken, and whoever is so late that the ring has come round finds
out, drops the message, and the exchange asks again. The memory has no name: it is reached through
its owner's file descriptor, and goes away with the last process that holds it, also after kill −9.

Where an arena is stands in its owner's `endpoint.json`, never in a message. Two workers use theirs
if they are in one process namespace of one machine and can open each other's; else, and for what is
not a payload, they use ZeroMQ alone.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

SLOTS = 16
REPEATS = 8
HEADER = 64  # a slot's generation, in a cache line of its own
MARK = b"decent-arena"
BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Place:
    """Where an arena can be reached: on which machine, by which descriptor of which process."""

    machine: str
    pid: int
    fd: int
    slots: int
    size: int  # bytes of a payload, at most

    @classmethod
    def of(cls, known: Any) -> Place | None:
        """From what `published` made; None where it is nothing of the kind."""
        try:
            place = cls(**known)
        except TypeError:
            return None
        numbers = (place.pid, place.fd, place.slots, place.size)
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


class _Ring:
    """Slots in mapped memory: a generation, then the payload."""

    def __init__(self, memory: mmap.mmap, slots: int, size: int) -> None:
        self.slots, self.size, self._stride = slots, size, HEADER + size
        self._bytes = np.frombuffer(memory, np.uint8)
        self._generations = [
            self._bytes[k * self._stride : k * self._stride + 8].view(np.uint64)
            for k in range(slots)
        ]

    def generation(self, slot: int) -> int:
        return int(self._generations[slot][0])

    def mark(self, slot: int, generation: int) -> None:
        self._generations[slot][0] = generation

    def payload(self, slot: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        start = slot * self._stride + HEADER
        return self._bytes[start : start + size]


class Arena:
    """This worker's own ring. `place` is None where the system has no such memory."""

    def __init__(self, size: int, slots: int = SLOTS) -> None:
        self.place: Place | None = None
        size = -(-size // HEADER) * HEADER
        if sys.platform != "linux" or not machine():
            return
        self._fd = os.memfd_create("decent-arena")
        length = slots * (HEADER + size)
        os.ftruncate(self._fd, length)
        self._ring = _Ring(mmap.mmap(self._fd, length), slots, size)
        self.place = Place(machine(), os.getpid(), self._fd, slots, size)
        self._next = 0

    def put(self, payload: Any) -> bytes:
        """Copy the payload's bytes into the ring; the frame that stands for them."""
        values = np.frombuffer(payload, np.uint8)
        self._next += 1
        slot, generation = self._next % self._ring.slots, 2 * self._next
        self._ring.mark(slot, generation - 1)  # odd: being written
        np.copyto(self._ring.payload(slot, values.size), values)
        self._ring.mark(slot, generation)
        return MARK + b"".join(
            each.to_bytes(8, "little") for each in (slot, generation, values.size)
        )


class Neighbour:
    """A peer's arena, opened for reading. Raises OSError where it cannot be."""

    def __init__(self, place: Place) -> None:
        if place.machine != machine() or not machine():
            raise OSError(f"the arena of process {place.pid} is on another machine")
        length = place.slots * (HEADER + place.size)
        path = f"/proc/{place.pid}/fd/{place.fd}"
        with open(path, "rb", opener=_at_once) as file:
            if os.fstat(file.fileno()).st_size != length:
                raise OSError(f"descriptor {place.fd} of process {place.pid} is no arena")
            memory = mmap.mmap(file.fileno(), length, prot=mmap.PROT_READ)
        self._ring = _Ring(memory, place.slots, place.size)

    def take(self, frame: Any) -> np.ndarray[Any, np.dtype[np.uint8]] | None:
        """A copy of the payload that `frame` stands for; None if it is no longer there."""
        slot, generation, size = (
            int.from_bytes(frame[len(MARK) + 8 * k : len(MARK) + 8 * k + 8], "little")
            for k in range(3)
        )
        if not (slot < self._ring.slots and 0 < size <= self._ring.size):
            return None
        written = generation and generation % 2 == 0
        if not written or self._ring.generation(slot) != generation:
            return None
        taken = self._ring.payload(slot, size).copy()
        return taken if self._ring.generation(slot) == generation else None


def stands_for_payload(frame: Any) -> bool:
    """Whether a frame names a slot instead of being the payload."""
    return len(frame) == len(MARK) + 24 and bytes(frame[: len(MARK)]) == MARK


class Shortcuts:
    """Sends payloads through memory to the peers that can be reached so. `locate(peer)` says where
    a peer's arena is, or None."""

    def __init__(self, size: int, locate: Callable[[int], Place | None]) -> None:
        self.arena, self._locate = Arena(size), locate
        self._open: dict[int, Neighbour | None] = {}
        self._sent: dict[tuple[int, str], tuple[int, int]] = {}
        self._repeats: dict[int, int] = {}
        self.carried = 0  # bytes that went this way

    def outgoing(self, peer: int, kind: str, key: tuple[int, int], frames: list[Any]) -> list[Any]:
        """The frames to send instead. What is sent again, `key` = (exchange, chunk) tells, goes
        over the wire: if that happens often, the peer cannot see our memory."""
        again = key <= self._sent.get((peer, kind), (-1, -1))
        self._sent[peer, kind] = max(key, self._sent.get((peer, kind), key))
        self._repeats[peer] = self._repeats.get(peer, 0) + again
        if again or self._repeats[peer] > REPEATS or self._neighbour(peer) is None:
            return frames
        self.carried += len(frames[1])
        return [frames[0], self.arena.put(frames[1])]

    def incoming(self, peer: int | None, frames: list[Any]) -> list[Any] | None:
        """The frames with their payload in place; None if it is gone, or never was there."""
        if len(frames) != 2 or not stands_for_payload(frames[1]):
            return frames
        neighbour = None if peer is None else self._neighbour(peer)
        payload = None if neighbour is None else neighbour.take(frames[1])
        if payload is None:
            if peer is not None:
                self._open.pop(peer, None)  # it may have restarted: look again next time
            return None
        return [frames[0], payload]

    def _neighbour(self, peer: int) -> Neighbour | None:
        if self.arena.place is None:
            return None
        if self._open.get(peer) is None:
            place = self._locate(peer)
            if place is None:
                return None  # it has not said yet
            try:
                self._open[peer] = Neighbour(place)
            except (OSError, ValueError):
                self._repeats[peer] = REPEATS + 1
                self._open[peer] = None
        return self._open[peer]
