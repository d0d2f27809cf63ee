"""Malformed frames by the million: valid ones that are cut, spliced, overwritten and blown up.

A generator's round works on a block of copies of one valid header at once, so that a frame costs
less than a microsecond to make and decoding it is what takes the time. Everything comes of a seed.
`FRAMES=20000000 pytest tests/fuzz -s` (or `make fuzz`) tries as many, from another seed each time;
without it the frames are the same each time.
"""

from __future__ import annotations

import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import msgspec
import numpy as np
from numpy.typing import NDArray

from decent.worker import Packet
from decent.worker import frames as wired

RUN = "run-of-the-tests"
BLOCK = 512
"""frames made of one valid header in one go"""
CI = 1_000_000
"""malformed frames that the tests try in all without FRAMES: most of them on the decoder, the
others on codecs, shared memory, workers and real sockets"""
Rng = np.random.Generator
Bytes = NDArray[np.uint8]
Mutation = Callable[[Rng, Bytes], list[bytes]]
Valid = tuple[bytes, bytes | None]
"""a header and its payload"""

TOKENS = [
    b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xde\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xda\xff\xff", b"\xd9\xff", b"\xc6\xff\xff\xff\xff", b"\xc4\xff",
    b"\xcf" + 8 * b"\xff", b"\xd3\x80" + 7 * b"\x00", b"\xce\xff\xff\xff\xff", b"\xff", b"\x7f",
    b"\xcb\x7f\xf8" + 6 * b"\x00", b"\xcb\x7f\xf0" + 6 * b"\x00", b"\xcb\xff\xf0" + 6 * b"\x00",
    b"\xcb\x7f\xef" + 6 * b"\xff", b"\xca\x7f\xc0\x00\x00", b"\xcb\x80" + 7 * b"\x00",
    b"\xd4\x01\x00", b"\xd8\xff" + 16 * b"\x00", b"\xc7\xff\x01", b"\xc9\xff\xff\xff\xff\x02",
    b"\xd6\xff\xff\xff\xff\xff", b"\xc0", b"\xc1", b"\xc2", b"\xc3", b"\x80", b"\x90", b"\xa0",
    b"\xa119", b"\xa3\xff\xfe\xfd", b"\xa4\xed\xa0\x80\x00", b"\x91" * 40, b"\x81\xa0" * 40,
    b"\x91" * 3000, b"\x81\xa0" * 3000, b"\x96\x05", b"\x96\x06", b"\xa4kind", b"\xa3src",
]  # fmt: skip
"""msgpack that claims much, means nothing, or is not what a header holds."""


def frames_wanted() -> int:
    """How many malformed frames to try."""
    return int(float(os.environ.get("FRAMES", CI)))


def seed() -> int:
    """Another each time where more is asked for than usual."""
    return time.time_ns() if "FRAMES" in os.environ else 0


# what can be done to a block [BLOCK, length] of copies of a header


def _flip(rng: Rng, block: Bytes) -> list[bytes]:
    """One to four bits."""
    for _ in range(int(rng.integers(1, 5))):
        where = rng.integers(block.shape[1], size=len(block))
        block[np.arange(len(block)), where] ^= 1 << rng.integers(8, size=len(block), dtype=np.uint8)
    return _rows(block)


def _overwrite(rng: Rng, block: Bytes) -> list[bytes]:
    """A few bytes in a row, with anything."""
    count = int(rng.integers(1, min(9, block.shape[1])))
    where = rng.integers(block.shape[1] - count + 1, size=len(block))
    columns = where[:, np.newaxis] + np.arange(count)
    np.put_along_axis(block, columns, rng.integers(256, size=columns.shape, dtype=np.uint8), 1)
    return _rows(block)


def _cut(rng: Rng, block: Bytes) -> list[bytes]:
    whole, ends = block[0].tobytes(), rng.integers(block.shape[1], size=len(block)).tolist()
    return [whole[:end] for end in ends]


def _extend(rng: Rng, block: Bytes) -> list[bytes]:
    whole, tail = block[0].tobytes(), rng.bytes(len(block) + 64)
    sizes = rng.integers(1, 64, size=len(block)).tolist()
    return [whole + tail[at : at + size] for at, size in enumerate(sizes)]


def _insert(rng: Rng, block: Bytes) -> list[bytes]:
    """A token in place of some bytes."""
    whole = block[0].tobytes()
    starts = rng.integers(len(whole), size=len(block)).tolist()
    gone = rng.integers(0, 12, size=len(block)).tolist()
    tokens = rng.integers(len(TOKENS), size=len(block)).tolist()
    parts = zip(starts, gone, tokens, strict=True)
    return [whole[:at] + TOKENS[token] + whole[at + size :] for at, size, token in parts]


def _random(rng: Rng, block: Bytes) -> list[bytes]:
    return _rows(rng.integers(256, size=block.shape, dtype=np.uint8))


def _rows(block: Bytes) -> list[bytes]:
    length, data = block.shape[1], block.tobytes()
    return [data[at : at + length] for at in range(0, len(data), length)]


MUTATIONS: list[Mutation] = [_flip, _flip, _overwrite, _cut, _extend, _insert, _insert, _random]


def _splice(rng: Rng, one: bytes, other: bytes) -> list[bytes]:
    """The beginning of one valid header and the end of another."""
    heads = rng.integers(len(one), size=BLOCK).tolist()
    tails = rng.integers(len(other), size=BLOCK).tolist()
    return [one[:head] + other[tail:] for head, tail in zip(heads, tails, strict=True)]


def _anything(rng: Rng, depth: int = 0) -> Any:
    """A value that msgpack can hold."""
    values: list[Any] = [
        None, True, -1, 0, 2**53, 2**64 - 1, -(2**63), 1.5, float("nan"), float("inf"), -1e308,
        "", "7", "beat", "x" * 300, b"", b"\x00" * 9, msgpack.Timestamp(9),
        msgpack.ExtType(5, b"e"),
        *([[_anything(rng, depth + 1)], {"kind": _anything(rng, depth + 1)}, [0] * 70,
           [-1, 2**60]] if depth < 3 else []),
    ]  # fmt: skip
    return values[int(rng.integers(len(values)))]


def _fields(rng: Rng, body: bytes) -> list[bytes]:
    """Fields of a valid message that hold anything, are missing, or are too many."""
    fields, made = msgspec.msgpack.decode(body), []
    names = sorted(fields)
    for _ in range(BLOCK // 2):
        changed = dict(fields)
        name = names[int(rng.integers(len(names)))]
        match int(rng.integers(4)):
            case 0:
                del changed[name]
            case 1:
                changed[f"{name}s"] = _anything(rng)
            case _:
                changed[name] = _anything(rng)
        made.append(msgpack.packb(changed))
    return made


def _parts(header: bytes) -> list[Any]:
    """Of a valid header; its message, the third, as raw bytes."""
    parts: list[Any] = list(msgspec.msgpack.decode(header))
    parts[2] = bytes(msgspec.msgpack.decode(header, type=list[msgspec.Raw])[2])
    return parts


def _signed(parts: list[Any], body: bytes) -> bytes:
    """The header with another message in it, whose checksum is right."""
    version, run, _, check, place, _ = parts
    return wired.seal(body, run, check, place, version)


def _block(rng: Rng, valid: list[Valid]) -> tuple[Valid, list[bytes]]:
    """A valid message, and a block of malformed headers made of it."""
    one, other = (valid[int(each)] for each in rng.integers(len(valid), size=2))
    kind, inside = int(rng.integers(len(MUTATIONS) + 2)), rng.random() < 0.5
    parts = _parts(one[0])
    whole, another = (parts[2], _parts(other[0])[2]) if inside else (one[0], other[0])
    if kind == len(MUTATIONS):
        return one, [_signed(parts, body) for body in _fields(rng, parts[2])]
    if kind == len(MUTATIONS) + 1:
        made = _splice(rng, whole, another)
    else:
        made = MUTATIONS[kind](rng, np.tile(np.frombuffer(whole, np.uint8), (BLOCK, 1)))
    return one, [_signed(parts, body) for body in made] if inside else made


def messages(rng: Rng, valid: list[Valid], most: int) -> Iterator[list[Any]]:
    """Malformed messages without end: their frames. `valid` are headers with their payloads; a
    payload has `most` bytes at most. Of some the header is wrong, of others the frames; a few come
    out valid after all."""
    payloads = [b"", b"\x00", bytes(3), bytes(8), bytes(most), bytes(most + 1), bytes(2 * most)]
    for number in itertools.count():
        (whole, payload), headers = _block(rng, valid)
        for place, header in enumerate(headers):
            if place % 8:
                yield [header] if payload is None else [header, payload]
            else:
                yield _wrong_frames(number + place // 8, whole, header, payload, payloads)


def _wrong_frames(
    number: int, whole: bytes, header: bytes, payload: Any, payloads: list[bytes]
) -> list[Any]:
    other = payloads[number % len(payloads)]
    match number % 7:
        case 0:
            return []
        case 1:
            return [whole, *([] if payload is not None else [other])]
        case 2:
            return [whole, other, other]
        case 3:
            return [whole + bytes(wired.HEADER_BYTES), other]
        case 4:
            return [payload or other, whole]
        case 5:
            return [header, other]
        case _:
            return [whole] * 64


# what comes of them


class Tally:
    """How many frames were refused with what; printed at the end, for those who look (-s)."""

    def __init__(self, what: str) -> None:
        self.what, self.counts = what, Counter[str]()
        self._start_s = time.monotonic()

    def count(self, outcome: str) -> None:
        self.counts[outcome] += 1

    def refused(self, error: Exception) -> None:
        self.counts[f"{type(error).__name__}: {_kind(str(error))}"] += 1

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def show(self) -> None:
        took_s = time.monotonic() - self._start_s
        print(f"\n{self.what}: {self.total:,} in {took_s:.1f} s")
        for outcome, count in self.counts.most_common(30):
            print(f"  {count:>12,}  {outcome}")


def _kind(text: str) -> str:
    """The words of an error without what is particular to one message."""
    words = re.sub(r"'[^']*'|`[^`]*`|- at .*|byte 0x\w+", "…", text.split(": check")[0])
    return re.sub(r"-?\d[\d.e+,]*", "#", words)[:70]


def once_each(kinds: list[Packet]) -> list[Valid]:
    """Headers and payloads of some packets."""
    pairs = [wired.encode(packet, RUN) for packet in kinds]
    return [(bytes(frames[0]), bytes(frames[1]) if len(frames) > 1 else None) for frames in pairs]


def some(count: int, rng: Rng, valid: list[Valid], most: int) -> Iterator[list[Any]]:
    return itertools.islice(messages(rng, valid, most), count)
