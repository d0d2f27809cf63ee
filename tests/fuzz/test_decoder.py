"""The decoder under fire: only ProtocolError and PeerRefused come out, and no memory goes in."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from decent.errors import PeerRefused, ProtocolError
from decent.worker import Packet
from decent.worker import frames as wired
from decent.worker import messages as m

from . import mutations
from .mutations import RUN, Tally

FLOAT = np.dtype("<f4")
LIMIT = 64
VALUES = np.arange(LIMIT, dtype=FLOAT)
BYTES = VALUES.view(np.uint8)

PACKETS = [
    Packet(m.Hello(1, 0, 2**41, 4, "d" * 40, 10**6, 2**17, "<f4", "exact", True, 1.5, -1)),
    Packet(m.Refuse(1, -1, 7, "no, for a reason")),
    Packet(m.Beat(1, 0, 7)),
    Packet(m.Gone(1, 0, 7, "its training process died")),
    Packet(m.Request(1, 0, 7, 7, 300, 4, 1.5, 2, (0.5, -1.25)), BYTES),
    Packet(m.Look(1, 0, 7, 7, 300, 4, 1.5, 2, (0.5, -1.25))),
    Packet(m.Reply(1, 0, 7, 7, 300, 4, 1.5), BYTES),
    Packet(m.Change(1, 0, 7, 7, 300, 4, 1.5), BYTES),
    Packet(m.Decline(1, 0, 7, 7, 300, 4, "merging")),
    Packet(m.Settled(1, 0, 7, 7, 300)),
    Packet(m.Show(1, 0, 7, 4)),
    Packet(m.Shown(1, 0, 7, 4, 300), VALUES),
    Packet(m.Ready(1, 0, 7, 0, (2, 300))),
    Packet(m.Collect(1, 0, 7, 0, (), 5)),
    Packet(m.Partial(1, 0, 7, 0, (3,), 5, 1.5), VALUES),
    Packet(m.Fetch(1, 0, 7, 0, (), 5)),
    Packet(m.Result(1, 0, 7, 0, (), 5, (2,)), VALUES),
    Packet(m.Held(1, 0, 7, 0, (), (2, 300))),
    Packet(m.Done(1, 0, 7, 0, ())),
    Packet(m.Close(1, 0, 7, 0, ())),
    Packet(m.Obituary(1, 0, 7, 0, tuple(range(500)))),
]
VALID = mutations.once_each(PACKETS)


def attempt(frames: list[Any], tally: Tally) -> Packet | None:
    try:
        packet = wired.decode(frames, RUN, FLOAT, LIMIT)
    except (ProtocolError, PeerRefused) as error:
        tally.refused(error)
        return None
    tally.count(f"taken, and again the same: {type(packet.message).__name__}")
    return packet


def again_the_same(packet: Packet) -> None:
    frames = [bytes(frame) for frame in wired.encode(packet, RUN)]
    message, payload, check, _ = wired.decode(frames, RUN, FLOAT, LIMIT)
    assert message == packet.message
    assert (payload is None) == (packet.payload is None)
    if payload is not None and packet.payload is not None:
        assert payload.dtype == packet.payload.dtype
        assert payload.tobytes() == packet.payload.tobytes()
        assert check == m.checksum(payload)
        assert 0 < payload.nbytes <= LIMIT * FLOAT.itemsize


def test_every_message_is_among_them() -> None:
    assert {type(packet.message) for packet in PACKETS} == set(m.Any_.__args__)


@pytest.mark.timeout(0)
def test_malformed_frames_are_refused_in_words() -> None:
    tally = Tally("frames to the decoder")
    rng = np.random.default_rng(mutations.seed())
    for frames in mutations.some(
        round(0.85 * mutations.frames_wanted()), rng, VALID, LIMIT * FLOAT.itemsize
    ):
        packet = attempt(frames, tally)
        if packet is not None:
            again_the_same(packet)
    tally.show()
    refused = sum(n for words, n in tally.counts.items() if not words.startswith("taken"))
    assert refused > tally.total / 2


def test_no_frame_costs_more_memory_than_itself() -> None:
    """A list's element takes a byte on the wire and some words here: a few times a header's size,
    whatever it claims; and a payload's memory is the frame's own."""
    tally, rng = Tally("frames whose memory was watched"), np.random.default_rng(1)
    watched = [*mutations.some(30_000, rng, VALID, LIMIT * FLOAT.itemsize), *bombs()]
    worst = 0.0
    tracemalloc.start()
    try:
        for frames in watched:
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            attempt(frames, tally)
            grown = tracemalloc.get_traced_memory()[1] - before
            header = min(wired.HEADER_BYTES, len(frames[0])) if frames else 0
            assert grown <= 16_384 + 32 * header, frames[0][:40]
            worst = max(worst, grown)
    finally:
        tracemalloc.stop()
    tally.show()
    print(f"  most for one of them: {worst:,.0f} bytes")


def bombs() -> list[list[bytes]]:
    """Headers of the largest size that are as costly as they can be made."""
    room = wired.HEADER_BYTES - 200
    kind = b"\x96\x05" + bytes([0xA0 + len(RUN)]) + RUN.encode()
    start = (
        kind + b"\x86\xa4kind\xa8obituary\xa3src\x01\xa3dst\x00\xa5epoch\x07\xa5round\x00\xa4dead"
    )
    count = room.to_bytes(4, "big")
    return [
        [start + b"\xdd" + count + b"\x01" * room],  # small numbers
        [
            start
            + b"\xdd"
            + (room // 9).to_bytes(4, "big")
            + (b"\xcf" + b"\x00\x1f" * 4) * (room // 9)
        ],
        [start + b"\xdd" + count + b"\x90" * room],  # empty lists
        [start + b"\xdd" + count + b"\x80" * room],
        [start + b"\x91" * room],
        [start + b"\x81\xa0" * (room // 2)],
        [kind + b"\xdd" + count + b"\x90" * room],
        [b"\x96\xdd" + count + b"\x90" * room],
        [b"\x96\x05\xdb" + count + b"x" * room],
        [b"\xdd" + count + b"\x90" * room],
        [b"\xdf" + (room // 2).to_bytes(4, "big") + b"\xa0\x90" * (room // 2)],
    ]
