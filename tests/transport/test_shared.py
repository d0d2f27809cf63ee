"""Payloads through shared memory: what arrives is what was sent, or nothing; nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decent.transport.shared import Arena, Neighbour, Place, Shortcuts, machine, stands_for_payload

pytestmark = pytest.mark.skipif(not machine(), reason="no anonymous shared memory on this system")


def arena(size: int = 4096, slots: int = 4) -> tuple[Arena, Place]:
    made = Arena(size, slots)
    assert made.place is not None
    return made, made.place


def payload(seed: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size // 8)


def test_what_is_taken_is_what_was_put() -> None:
    ours, place = arena()
    reader = Neighbour(place)
    for seed in range(20):
        sent = payload(seed, 8 * (seed + 1))
        frame = ours.put(sent.data.cast("B"))
        assert stands_for_payload(frame)
        taken = reader.take(frame)
        assert taken is not None
        assert taken.tobytes() == sent.tobytes()


def test_what_was_taken_does_not_change_with_the_ring() -> None:
    ours, place = arena(slots=2)
    reader, sent = Neighbour(place), payload(1)
    taken = reader.take(ours.put(sent.data.cast("B")))
    for seed in range(9):
        ours.put(payload(seed).data.cast("B"))
    assert taken is not None
    assert taken.tobytes() == sent.tobytes()


def test_who_is_late_finds_out() -> None:
    ours, place = arena(slots=4)
    reader = Neighbour(place)
    frames = [ours.put(payload(seed).data.cast("B")) for seed in range(5)]
    assert reader.take(frames[0]) is None  # the ring has come round
    assert all(reader.take(frame) is not None for frame in frames[1:])


@pytest.mark.parametrize("words", [(9, 2, 8), (1, 2, 0), (1, 2, 10**9), (2**63, 2, 8)])
def test_a_frame_that_names_no_payload_gets_none(words: tuple[int, ...]) -> None:
    ours, place = arena()
    good = ours.put(payload(0).data.cast("B"))
    bad = good[:12] + b"".join(word.to_bytes(8, "little") for word in words)
    assert Neighbour(place).take(bad) is None


def test_the_memory_is_for_reading_only() -> None:
    ours, place = arena()
    ours.put(payload(0).data.cast("B"))
    assert not Neighbour(place)._ring.payload(1, 8).flags.writeable


def test_what_is_no_arena_is_not_opened(tmp_path: Path) -> None:
    _, place = arena()
    with (tmp_path / "other").open("w+b") as file:
        for wrong in (
            replace(place, machine="elsewhere"),
            replace(place, fd=file.fileno()),
            replace(place, pid=2**22 + 1),
        ):
            with pytest.raises(OSError, match=r"arena|No such"):
                Neighbour(wrong)


def test_nothing_is_left_of_a_process_that_was_killed() -> None:
    before = sorted(os.listdir("/dev/shm"))
    script = (
        "import json, time; from decent.transport.shared import Arena; a = Arena(1 << 20);"
        "a.put(bytes(100)); print(json.dumps(a.place.published()), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    place = Place.of(__import__("json").loads(process.stdout.readline()))
    assert place is not None
    Neighbour(place)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(OSError, match="No such"):
        Neighbour(place)
    assert sorted(os.listdir("/dev/shm")) == before


def test_a_peer_that_never_answers_is_sent_to_over_the_wire() -> None:
    """What is repeated goes inline; after a while so does everything."""
    _, place = arena()
    ours = Shortcuts(4096, lambda peer: place)
    frames = [b"header", payload(0).data.cast("B")]
    assert stands_for_payload(ours.outgoing(1, "Request", (0, 0), frames)[1])
    assert ours.outgoing(1, "Request", (0, 0), frames) is frames
    for _ in range(10):
        ours.outgoing(1, "Request", (0, 0), frames)
    assert ours.outgoing(1, "Request", (1, 0), frames) is frames
    assert stands_for_payload(ours.outgoing(2, "Request", (1, 0), frames)[1])


def test_a_payload_that_cannot_be_seen_is_dropped() -> None:
    ours, place = arena()
    frame = ours.put(payload(0).data.cast("B"))
    here = Shortcuts(4096, lambda peer: place if peer == 1 else None)
    assert here.incoming(1, [b"header", frame]) is not None
    assert here.incoming(2, [b"header", frame]) is None
    assert here.incoming(None, [b"header", frame]) is None
    assert here.incoming(2, [b"header", b"a payload"]) == [b"header", b"a payload"]
