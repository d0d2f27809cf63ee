"""What workers say to one another, and how it looks on the wire.

A message is a small typed header and at most one raw payload: a chunk of a vector. On the wire it
is one msgpack frame `[VERSION, run, header, check, place]` and, where there is a payload, one frame
of raw bytes: what the codec makes of an exchange's values, and the merge's values as they are, all
little-endian. `check` is the payload's checksum, 64 bits of XXH3. Or `place` says where in shared
memory the payload is found, and there is no second frame. Nothing is pickled, every number in a
header is finite and within bounds, and nothing is allocated before its size has been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import xxhash

from decent.errors import PeerRefused, ProtocolError

VERSION = 3
OTHER_VERSION = f"peer speaks protocol version {{}}, this worker {VERSION}"
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
    """A sign of life."""


class Gone(Message, frozen=True):
    """The sender stops for good, without being merged."""

    reason: str


class Addressed(Message, frozen=True):
    """Base of an exchange's messages: for the addressee's incarnation `to_epoch`, and no other."""

    to_epoch: Count


class Asking(Addressed, frozen=True):
    """Base: about chunk `chunk` of exchange `seq`; `mix` are the coefficients b both ends use.
    `settled`: answers to chunks below this need not be remembered any longer."""

    seq: Count
    chunk: Count
    settled: Count
    mix: Annotated[tuple[Real, ...], msgspec.Meta(max_length=SLOTS)]


class Request(Asking, frozen=True):
    """The sender's snapshot of that chunk."""


class Look(Asking, frozen=True):
    """The sender's values stand where the addressee can see them: it is to take them from there."""


class Reply(Addressed, frozen=True):
    """The responder's snapshot of that chunk, taken when it applied its own half."""

    seq: Count
    chunk: Count


class Change(Addressed, frozen=True):
    """The answer to a look: what the responder has mixed, the values it saw minus its own."""

    seq: Count
    chunk: Count


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


class Fetch(Wave, frozen=True):
    """Send me the result's chunk (again)."""

    chunk: Count


class Result(Wave, frozen=True):
    """One chunk of the weighted mean."""

    chunk: Count


class Done(Wave, frozen=True):
    """The sender and everyone below it hold the whole result."""


class Close(Wave, frozen=True):
    """Everyone holds the result."""


class Obituary(Wave, frozen=True):
    """The sender lives, and merges without `dead`: perhaps more than you know of."""


WithPayload = (Request, Reply, Change, Partial, Result)
Coded = (Request, Reply, Change)
Any_ = (
    Hello
    | Refuse
    | Beat
    | Gone
    | Request
    | Look
    | Reply
    | Change
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
    """A message and its payload (1-D array, or None). `check`: the checksum it came with; `intact`:
    of a payload read where its sender wrote it, whether it is still what was sent."""

    message: Message
    payload: np.ndarray[Any, Any] | None = None
    check: int | None = None
    intact: Callable[[], bool] = lambda: True

    @property
    def nbytes(self) -> int:
        """Payload bytes; headers are counted where they are encoded."""
        return 0 if self.payload is None else int(self.payload.nbytes)

    @property
    def damaged(self) -> bool:
        """Whether the payload is not what was sent."""
        if self.payload is None or self.check is None:
            return False
        return checksum(self.payload) != self.check


def checksum(payload: np.ndarray[Any, Any]) -> int:
    """64 bits of its bytes. It tells damage, not forgery."""
    return xxhash.xxh3_64_intdigest(payload.data)


Place = tuple[Count, Count, Count]
"""A payload in its sender's shared memory: slot, generation, bytes (see `transport.shared`)."""
Header = tuple[int, str, msgspec.Raw, Check | None, Place | None]
Find = Callable[[Place], tuple[np.ndarray[Any, Any], Callable[[], bool]] | None]

_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_list_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_message_decoder = msgspec.msgpack.Decoder[Message](Any_)


def encode(packet: Packet, run: str, place: Place | None = None) -> list[Any]:
    """The frames of `packet`: header bytes, then the payload's own memory (not a copy), unless it
    is to be found at `place`."""
    if packet.payload is None or place is not None:
        return [_encoder.encode((VERSION, run, packet.message, None, place))]
    check = checksum(packet.payload)
    return [
        _encoder.encode((VERSION, run, packet.message, check, None)), packet.payload.data.cast("B")
    ]  # fmt: skip


def decode(
    frames: Sequence[Any], run: str, dtype: np.dtype[Any], limit: int, find: Find | None = None
) -> Packet:
    """The packet of `frames`; a payload holds at most `limit` values of `dtype`, or as many bytes.
    `find` looks up payloads in shared memory: bytes, and whether they are still there.

    Raises ProtocolError for anything malformed and PeerRefused for another version or run.
    """
    version, their_run, body, check, place = _header(frames)
    if version != VERSION:
        raise PeerRefused(OTHER_VERSION.format(version))
    if their_run != run:
        raise PeerRefused(
            f"peer belongs to run {their_run[:80]!r}, this worker to run {run!r}: "
            "check the address, or whether another run uses the port"
        )
    try:
        message = _message_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"malformed header: {error}") from None
    _expect(message, len(frames) == 2, check, place)
    if place is not None:
        found = None if find is None else find(place)
        if found is None:
            raise ProtocolError(f"a payload in shared memory, at {place}, that is not there")
        return Packet(message, _payload(message, found[0], dtype, limit), intact=found[1])
    if check is not None:
        return Packet(message, _payload(message, frames[1], dtype, limit), check)
    return Packet(message)


def _header(frames: Sequence[Any]) -> Header:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"{len(frames)} frames, expected a header and at most one payload")
    if len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}")
    try:
        header: Header = _header_decoder.decode(frames[0])
        return header
    except msgspec.ValidationError as error:
        _check_version(frames[0])
        raise ProtocolError(
            f"a header that is not [version, run, message, check, place]: {error}"
        ) from None
    except Exception as error:
        raise ProtocolError(f"a header that is not msgpack ({type(error).__name__})") from None


def _check_version(header: Any) -> None:
    """Whether it is malformed for us because it is of another version."""
    try:
        version = msgspec.msgpack.decode(_list_decoder.decode(header)[0], type=int)
    except Exception:
        return
    if version != VERSION:
        raise PeerRefused(OTHER_VERSION.format(version))


def _expect(message: Message, framed: bool, check: int | None, place: Place | None) -> None:
    """A payload where one belongs, and one way alone."""
    wanted = isinstance(message, WithPayload)
    if framed != (check is not None) or wanted != (framed != (place is not None)):
        kind = type(message).__name__
        raise ProtocolError(f"{kind} {'without' if wanted else 'with'} a payload")


def _payload(
    message: Message, memory: Any, dtype: np.dtype[Any], limit: int
) -> np.ndarray[Any, Any]:
    kind_of = np.dtype(np.uint8) if isinstance(message, Coded) else dtype
    size, most = len(memory), limit * dtype.itemsize
    if not 0 < size <= most or size % kind_of.itemsize:
        raise ProtocolError(f"a payload of {size} bytes, expected 1 … {most}, values of {kind_of}")
    return np.frombuffer(memory, kind_of)
