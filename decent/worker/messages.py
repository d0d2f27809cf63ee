"""What workers say to one another, and how it looks on the wire.

A message is a small typed header and at most one raw payload: a chunk of a vector. On the wire it
is one msgpack frame `[VERSION, run, header]` and, where there is a payload, one frame of raw
bytes: what the codec makes of an exchange's values, and the merge's values as they are, all little-
endian. The header holds the payload's checksum, 64 bits of XXH3. Nothing is pickled, every number
in a header is finite and within bounds, and nothing is allocated before its size has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import xxhash

from decent.errors import PeerRefused, ProtocolError

VERSION = 3
HEADER_BYTES = 16_384
"""A header is some hundred bytes; anything beyond this is not one of ours."""
SLOTS = 64
"""Coefficients in a request, at most."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Known = Annotated[int, msgspec.Meta(ge=-1, lt=2**53)]  # −1: not known
Check = Annotated[int, msgspec.Meta(ge=0)]
Real = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Weight = Annotated[float, msgspec.Meta(gt=0, le=1e300)]


class Message(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower
):
    """Sender, addressee, and the sender's incarnation: a restarted worker has a higher epoch."""

    src: Count
    dst: Known
    epoch: Count


class Hello(Message, frozen=True):
    """First words on a connection: what the sender is. `answer` asks for the peer's own, which
    gives back `asked_s`, the asker's time; `to_epoch` is the addressee's, as far as known."""

    workers: Count
    digest: str
    values: Count
    chunk: Count
    dtype: str
    codec: str
    answer: bool
    asked_s: Real
    to_epoch: Known


class Refuse(Message, frozen=True):
    """The sender will not talk, for a reason in words."""

    reason: str


class Beat(Message, frozen=True):
    """A sign of life, said at `asked_s` of the asker's time; `answer` asks to have that back."""

    asked_s: Real = 0.0
    answer: bool = False


class Gone(Message, frozen=True):
    """The sender stops for good, without being merged."""

    reason: str


class Addressed(Message, frozen=True):
    """Base of an exchange's messages: for the addressee's incarnation `to_epoch`, and no other."""

    to_epoch: Count


class Request(Addressed, frozen=True):
    """Chunk `chunk` of exchange `seq`; `mix` are the coefficients b both ends use.
    `settled`: replies to chunks below this need not be remembered any longer."""

    seq: Count
    chunk: Count
    settled: Count
    mix: Annotated[tuple[Real, ...], msgspec.Meta(max_length=SLOTS)]
    check: Check


class Reply(Addressed, frozen=True):
    """The responder's snapshot of that chunk, taken when it applied its own half."""

    seq: Count
    chunk: Count
    check: Check


class Decline(Addressed, frozen=True):
    """That chunk was not and will not be mixed."""

    seq: Count
    chunk: Count
    reason: str


class Settled(Addressed, frozen=True):
    """Exchange `seq` is complete at the initiator: nothing of it need be remembered."""

    seq: Count


class Wave(Message, frozen=True):
    """Base of the global merge's messages: which merge, and among whom (`dead`: without them)."""

    round: Count
    dead: tuple[Count, ...]


class Ready(Wave, frozen=True):
    """The sender and everyone below it in the tree have finished training."""


class Collect(Wave, frozen=True):
    """Send me your subtree's sum of this chunk."""

    chunk: Count


class Partial(Wave, frozen=True):
    """A subtree's weighted sum of one chunk, and its weight."""

    chunk: Count
    weight: Weight
    check: Check


class Fetch(Wave, frozen=True):
    """Send me the result's chunk (again)."""

    chunk: Count


class Result(Wave, frozen=True):
    """One chunk of the weighted mean."""

    chunk: Count
    check: Check


class Done(Wave, frozen=True):
    """The sender and everyone below it hold the whole result."""


class Close(Wave, frozen=True):
    """Everyone holds the result."""


class Obituary(Wave, frozen=True):
    """The sender lives, and merges without `dead`: perhaps more than you know of."""


WithPayload = (Request, Reply, Partial, Result)
Coded = (Request, Reply)
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
    def nbytes(self) -> int:
        """Payload bytes; headers are counted where they are encoded."""
        return 0 if self.payload is None else int(self.payload.nbytes)

    @property
    def damaged(self) -> bool:
        """Whether the payload is not what was sent."""
        if self.payload is None or not isinstance(self.message, WithPayload):
            return False
        return checksum(self.payload) != self.message.check


def checksum(payload: np.ndarray[Any, Any]) -> int:
    """64 bits of its bytes. It tells damage, not forgery."""
    return xxhash.xxh3_64_intdigest(payload.data)


_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])
_message_decoder = msgspec.msgpack.Decoder[Message](Any_)


def encode(packet: Packet, run: str) -> list[Any]:
    """The frames of `packet`: header bytes, then the payload's own memory (not a copy)."""
    header = _encoder.encode((VERSION, run, packet.message))
    return [header] if packet.payload is None else [header, packet.payload.data.cast("B")]


def decode(frames: Sequence[Any], run: str, dtype: np.dtype[Any], limit: int) -> Packet:
    """The packet of `frames`; a payload holds at most `limit` values of `dtype`, or as many bytes.

    Raises ProtocolError for anything malformed and PeerRefused for another version or run.
    """
    version, their_run, body = _header(frames)
    if version != VERSION:
        raise PeerRefused(f"peer speaks protocol version {version!r}, this worker {VERSION}")
    if their_run != run:
        raise PeerRefused(
            f"peer belongs to run {their_run[:80]!r}, this worker to run {run!r}: "
            "check the address, or whether another run uses the port"
        )
    try:
        message = _message_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed header: {error}") from None
    return Packet(message, _payload(message, frames, dtype, limit))


def _header(frames: Sequence[Any]) -> tuple[int, str, msgspec.Raw]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"{len(frames)} frames, expected a header and at most one payload")
    if len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}")
    try:
        return _header_decoder.decode(frames[0])
    except msgspec.ValidationError as error:
        raise ProtocolError(f"a header that is not [version, run, message]: {error}") from None
    except Exception as error:
        raise ProtocolError(f"a header that is not msgpack ({type(error).__name__})") from None


def _payload(
    message: Message, frames: Sequence[Any], dtype: np.dtype[Any], limit: int
) -> np.ndarray[Any, Any] | None:
    wanted = isinstance(message, WithPayload)
    if wanted != (len(frames) == 2):
        kind = type(message).__name__
        raise ProtocolError(f"{kind} {'without' if wanted else 'with'} a payload")
    if not wanted:
        return None
    kind_of = np.dtype(np.uint8) if isinstance(message, Coded) else dtype
    size, most = len(frames[1]), limit * dtype.itemsize
    if not 0 < size <= most or size % kind_of.itemsize:
        raise ProtocolError(f"a payload of {size} bytes, expected 1 … {most}, values of {kind_of}")
    return np.frombuffer(frames[1], kind_of)
