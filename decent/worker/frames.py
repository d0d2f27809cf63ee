"""How messages look on the wire.

A message is one msgpack frame `[VERSION, run, message, check, place, seal]` and, where there is a
payload, one frame of raw bytes: what the codec makes of an exchange's values, and the merge's
values as they are, all little-endian. `check` is the payload's checksum, 64 bits of XXH3, and
`seal` that of what stands before it. Or `place` says where in shared memory the payload is found,
and there is no second frame. Nothing is pickled, every number in a header is finite and within
bounds, and nothing is allocated before its size has been checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import xxhash

from decent.errors import PeerRefused, ProtocolError
from decent.worker.messages import (
    Any_,
    Check,
    Coded,
    Count,
    Message,
    Packet,
    WithPayload,
    checksum,
)

VERSION = 5
OTHER_VERSION = f"peer speaks protocol version {{}}, this worker {VERSION}"
HEADER_BYTES = 16_384
"""A header is some hundred bytes; anything beyond this is not one of ours."""

Place = tuple[Count, Count, Count]
"""A payload in its sender's shared memory: slot, generation, bytes (see `transport.shared`)."""
Header = tuple[int, str, msgspec.Raw, Check | None, Place | None, Check]
Find = Callable[[Place], tuple[np.ndarray[Any, Any], Callable[[], bool]] | None]

_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_message_decoder = msgspec.msgpack.Decoder[Message](Any_)


def encode(packet: Packet, run: str, place: Place | None = None) -> list[Any]:
    """The frames of `packet`: header bytes, then the payload's own memory (not a copy), unless it
    is to be found at `place`."""
    payload = packet.payload
    check = None if payload is None or place is not None else checksum(payload)
    header = seal(_encoder.encode(packet.message), run, check, place)
    if check is None or payload is None:
        return [header]
    return [header, payload.data.cast("B")]


def seal(
    body: bytes, run: str, check: int | None, place: Place | None, version: int = VERSION
) -> bytes:
    """The header of an encoded message."""
    sum_ = _sum(version, run, body, check, place)
    return _encoder.encode((version, run, msgspec.Raw(body), check, place, sum_))


def decode(
    frames: Sequence[Any], run: str, dtype: np.dtype[Any], limit: int, find: Find | None = None
) -> Packet:
    """The packet of `frames`; a payload holds at most `limit` values of `dtype`, or as many bytes.
    `find` looks up payloads in shared memory: bytes, and whether they are still there.

    Raises ProtocolError for anything malformed and PeerRefused for another version or run.
    """
    their_run, body, check, place = _header(frames)
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


def _header(frames: Sequence[Any]) -> tuple[str, msgspec.Raw, int | None, Place | None]:
    if not 1 <= len(frames) <= 2:
        raise ProtocolError(f"{len(frames)} frames, expected a header and at most one payload")
    if len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}")
    try:
        version, run, body, check, place, sum_ = _header_decoder.decode(frames[0])
    except msgspec.ValidationError as error:
        _check_version(frames[0])
        raise ProtocolError(f"a header that is not [version, run, message, …]: {error}") from None
    except Exception as error:
        raise ProtocolError(f"a header that is not msgpack ({type(error).__name__})") from None
    if sum_ != _sum(version, run, memoryview(body), check, place):
        raise ProtocolError("a damaged header")
    if version != VERSION:
        raise PeerRefused(OTHER_VERSION.format(version))
    return run, body, check, place


def _check_version(header: Any) -> None:
    """Whether it is malformed for us because it is of another version: a short list that begins
    with a small number."""
    start = bytes(header[:2])
    if len(start) == 2 and 0x90 < start[0] < 0xA0 and start[1] < 0x80 and start[1] != VERSION:
        raise PeerRefused(OTHER_VERSION.format(start[1]))


def _sum(version: int, run: str, body: Any, check: int | None, place: Place | None) -> int:
    """Of a header. Damage there could pass for another exchange, worker or life of one."""
    start = xxhash.xxh3_64_intdigest(f"{version}/{run}/{check}/{place}".encode())
    return xxhash.xxh3_64_intdigest(body, seed=start)


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
