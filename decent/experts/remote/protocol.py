"""What is said to a remote expert and back, and how it looks on the wire.

A message is one msgpack frame `[VERSION, seal, content]` and one frame of raw little-endian values
for each array; `content` is `[message, arrays]`, an array's entry `[dtype, shape, checksum]`, and
`seal` the checksum of `content` (64 bits of XXH3: it tells damage, not forgery).

    Hello  →  Welcome     the experts served, each with the digest of its weights
    Velocity  →  Answer   x [N, *S], t [N], condition [N, …] if any  →  velocity [N, *S]
    Steps  →  Answer      x [N, *S], condition if any; times t₀ > t₁ > …, guidance
                          →  x at the last of them
    (any)  →  Refuse      why not, in words

`job` and `seq` are the caller's, and tell which request is answered; with `expert` and `digest`
they make an answer's key: a velocity is a function of its request, so asking again, elsewhere or
twice, changes nothing. Nothing is pickled, and nothing is allocated before its size is checked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from decent.errors import PeerRefused, ProtocolError
from decent.worker.messages import Check, Count, checksum

VERSION = 2
HEADER_BYTES = 16_384
ARRAYS = 3
EXPERTS = 64
"""experts behind one address"""
ROWS = 16_384
"""rows of one request"""
TIMES = 1_000
"""times of one request for several steps"""
LARGEST = 2**30
"""bytes of one array"""

Array = NDArray[Any]
Number = Annotated[int, msgspec.Meta(ge=0, lt=EXPERTS * 1024)]
Time = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(max_length=200)]
Shape = Annotated[tuple[Count, ...], msgspec.Meta(max_length=8)]
Entry = tuple[Literal["<f2", "<f4", "<f8", "<i8"], Shape, Check]


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind",
              tag=str.lower):  # fmt: skip
    """The caller's job, and which of its requests this belongs to; 0: the connection itself."""

    job: Name
    seq: Count


class Hello(Message, frozen=True):
    """First words of a caller: which experts are there?"""


class Welcome(Message, frozen=True):
    """Those that are there, with the digests of their weights."""

    experts: Annotated[tuple[tuple[Number, Name], ...], msgspec.Meta(max_length=EXPERTS)]


class Request(Message, frozen=True):
    """Base: for that expert with those weights, and no other."""

    expert: Number
    digest: Name

    @property
    def most(self) -> int:
        """Rows that it may have."""
        return ROWS


class Velocity(Request, frozen=True):
    """The velocity of rows, each at its own time."""


class Steps(Request, frozen=True):
    """Euler steps in a row, from each time to the next, guided by that scale; 1: not guided."""

    times: Annotated[tuple[Time, ...], msgspec.Meta(min_length=2, max_length=TIMES)]
    guidance: float = 1.0

    @property
    def most(self) -> int:
        """With guidance each row is two of a forward."""
        return ROWS if self.guidance == 1 else ROWS // 2


class Answer(Message, frozen=True):
    """One array: velocities, or the states reached."""


class Refuse(Message, frozen=True):
    """Why there is no answer."""

    reason: Annotated[str, msgspec.Meta(max_length=2000)]


_encoder = msgspec.msgpack.Encoder()
_envelope = msgspec.msgpack.Decoder(tuple[int, Check, bytes])
_content = msgspec.msgpack.Decoder(
    tuple[
        Hello | Welcome | Velocity | Steps | Answer | Refuse,
        Annotated[tuple[Entry, ...], msgspec.Meta(max_length=ARRAYS)],
    ]
)


def frame_bytes(shape: Sequence[int]) -> int:
    """The largest frame of experts for samples of `shape`: as many rows as there may be."""
    return max(HEADER_BYTES, min(LARGEST, ROWS * math.prod(shape) * 8))


def encode(message: Message, arrays: Sequence[Array] = (), version: int = VERSION) -> list[bytes]:
    """The frames of a message; the arrays are copied."""
    packed = [np.ascontiguousarray(a, np.dtype(a.dtype).newbyteorder("<")) for a in arrays]
    entries = [(a.dtype.newbyteorder("<").str, a.shape, checksum(a.reshape(-1))) for a in packed]
    content = _encoder.encode((message, entries))
    return [_encoder.encode((version, _seal(content), content)), *(a.tobytes() for a in packed)]


def decode(frames: Sequence[Any]) -> tuple[Message, list[Array]]:
    """The message of `frames` and its arrays, which cannot be written to.

    Raises ProtocolError for anything malformed or damaged, PeerRefused for another version.
    """
    if not 1 <= len(frames) <= 1 + ARRAYS:
        raise ProtocolError(f"{len(frames)} frames, expected a header and at most {ARRAYS} arrays")
    if len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"a header of {len(frames[0])} bytes, the limit is {HEADER_BYTES}")
    try:
        version, seal, content = _envelope.decode(frames[0])
    except Exception as error:
        raise ProtocolError(f"no header of an expert's ({type(error).__name__})") from None
    if version != VERSION:
        raise PeerRefused(f"the peer speaks version {version} of the experts', not {VERSION}")
    if seal != _seal(content):
        raise ProtocolError("a damaged header")
    try:
        message, entries = _content.decode(content)
    except Exception as error:
        raise ProtocolError(f"a malformed header: {error}") from None
    if len(entries) != len(frames) - 1:
        raise ProtocolError(f"{len(entries)} arrays announced, {len(frames) - 1} sent")
    return message, [_array(*each) for each in zip(entries, frames[1:], strict=True)]


def _array(entry: Entry, frame: Any) -> Array:
    kind, shape, check = entry
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    if len(frame) != wanted or wanted > LARGEST:
        raise ProtocolError(f"{len(frame)} bytes for {kind} {shape}, which has {wanted}")
    flat = np.frombuffer(frame, kind) if wanted else np.empty(0, kind)
    if checksum(flat) != check:
        raise ProtocolError("a damaged array")
    return flat.reshape(shape)


def _seal(content: bytes) -> int:
    return checksum(np.frombuffer(content, np.uint8))
