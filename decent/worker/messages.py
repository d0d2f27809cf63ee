"""What workers say to one another, and how it looks on the wire.

A message is a small typed header and at most one raw payload: a chunk of a vector. On the wire it
is one msgpack frame `[VERSION, run, header]` and, where there is a payload, one frame of raw
little-endian values. Nothing is pickled, nothing is allocated before its size has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
import msgspec
import numpy as np

from decent.errors import PeerRefused, ProtocolError

VERSION = 1
HEADER_BYTES = 16_384
"""A header is some hundred bytes; anything beyond this is not one of ours."""


class Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """Sender, addressee, and the sender's incarnation: a restarted worker has a higher epoch."""

    src: int
    dst: int
    epoch: int


class Hello(Message, frozen=True):
    """First words on a connection: what the sender is. `answer` asks for the peer's own."""

    workers: int
    digest: str
    values: int
    chunk: int
    dtype: str
    answer: bool


class Refuse(Message, frozen=True):
    """The sender will not talk, for a reason in words."""

    reason: str


class Beat(Message, frozen=True):
    """A sign of life."""


class Gone(Message, frozen=True):
    """The sender stops for good, without being merged."""

    reason: str


class Request(Message, frozen=True):
    """Chunk `chunk` of exchange `seq`; `mix` are the coefficients b both ends use.
    `settled`: replies to chunks below this need not be remembered any longer."""

    seq: int
    chunk: int
    settled: int
    mix: tuple[float, ...]


class Reply(Message, frozen=True):
    """The responder's snapshot of that chunk, taken when it applied its own half."""

    seq: int
    chunk: int


class Decline(Message, frozen=True):
    """That chunk was not and will not be mixed."""

    seq: int
    chunk: int
    reason: str


class Settled(Message, frozen=True):
    """Exchange `seq` is complete at the initiator: nothing of it need be remembered."""

    seq: int


class Wave(Message, frozen=True):
    """Base of the global merge's messages: which merge, and among whom (`dead`: without them)."""

    round: int
    dead: tuple[int, ...]


class Ready(Wave, frozen=True):
    """The sender and everyone below it in the tree have finished training."""


class Collect(Wave, frozen=True):
    """Send me your subtree's sum of this chunk."""

    chunk: int


class Partial(Wave, frozen=True):
    """A subtree's weighted sum of one chunk, and its weight."""

    chunk: int
    weight: float


class Fetch(Wave, frozen=True):
    """Send me the result's chunk (again)."""

    chunk: int


class Result(Wave, frozen=True):
    """One chunk of the weighted mean."""

    chunk: int


class Done(Wave, frozen=True):
    """The sender and everyone below it hold the whole result."""


class Close(Wave, frozen=True):
    """Everyone holds the result."""


class Obituary(Wave, frozen=True):
    """The sender lives, and merges without `dead`: perhaps more than you know of."""


WithPayload = (Request, Reply, Partial, Result)
Any_ = (
    Hello
    | Refuse
    | Beat
    | Gone
    | Request
    | Reply
    | Decline
    | Settled
    | Ready
    | Collect
    | Partial
    | Fetch
    | Result
    | Done
    | Close
    | Obituary
)


class Packet(NamedTuple):
    """A message and its payload (1-D array, or None)."""

    message: Message
    payload: np.ndarray[Any, Any] | None = None

    @property
    def values(self) -> int:
        return 0 if self.payload is None else int(self.payload.size)

    @property
    def nbytes(self) -> int:
        """Payload bytes; headers are counted where they are encoded."""
        return 0 if self.payload is None else int(self.payload.nbytes)


def encode(packet: Packet, run: str) -> list[Any]:
    """The frames of `packet`: header bytes, then the payload's own memory (not a copy)."""
    header = msgpack.packb([VERSION, run, msgspec.to_builtins(packet.message)])
    return [header] if packet.payload is None else [header, packet.payload.data.cast("B")]


def decode(frames: Sequence[Any], run: str, dtype: np.dtype[Any], limit: int) -> Packet:
    """The packet of `frames`; a payload holds at most `limit` values of `dtype`.

    Raises ProtocolError for anything malformed and PeerRefused for another version or run.
    """
    header = _header(frames)
    version, their_run, body = header
    if version != VERSION:
        raise PeerRefused(f"peer speaks protocol version {version!r}, this worker {VERSION}")
    if their_run != run:
        raise PeerRefused(
            f"peer belongs to run {their_run[:80]!r}, this worker to run {run!r}: "
            "check the address, or whether another run uses the port"
        )
    try:
        message = msgspec.convert(body, Any_)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"malformed header: {error}") from None
    return Packet(message, _payload(message, frames, dtype, limit))


def _header(frames: Sequence[Any]) -> list[Any]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"{len(frames)} frames, expected a header and at most one payload")
    if len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}")
    try:
        header = msgpack.unpackb(frames[0], use_list=True, strict_map_key=True)
    except Exception as error:
        raise ProtocolError(f"a header that is not msgpack ({type(error).__name__})") from None
    if not isinstance(header, list) or [type(each) for each in header[:2]] != [int, str]:
        raise ProtocolError("a header that does not begin with version and run")
    if len(header) != 3:
        raise ProtocolError("a header that is not [version, run, message]")
    return header


def _payload(
    message: Message, frames: Sequence[Any], dtype: np.dtype[Any], limit: int
) -> np.ndarray[Any, Any] | None:
    wanted = isinstance(message, WithPayload)
    if wanted != (len(frames) == 2):
        kind = type(message).__name__
        raise ProtocolError(f"{kind} {'without' if wanted else 'with'} a payload")
    if not wanted:
        return None
    size = len(frames[1])
    if size == 0 or size % dtype.itemsize or size > limit * dtype.itemsize:
        raise ProtocolError(f"a payload of {size} bytes, expected 1 … {limit} values of {dtype}")
    return np.frombuffer(frames[1], dtype)
