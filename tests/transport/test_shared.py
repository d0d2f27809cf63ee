"""Payloads through shared memory: what arrives is what was sent, or nothing; nothing is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decent.transport.shared import (
    Arena,
    Mark,
    Neighbour,
    Place,
    Shortcuts,
    Values,
    machine,
)

pytestmark = pytest.mark.skipif(not machine(), reason="no anonymous shared memory on this system")
LANES = 4


def arena(size: int = 4096, slots: int = 4) -> tuple[Arena, Place]:
    made = Arena(size, slots)
    assert made.place is not None
    return made, made.place


def payload(seed: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def taken(reader: Neighbour, mark: Mark) -> bytes | None:
    found = reader.take(mark)
    return found[0].tobytes() if found is not None and found[1]() else None


def test_what_is_taken_is_what_was_put() -> None:
    ours, place = arena()
    reader = Neighbour(place)
    for seed in range(20):
        sent = payload(seed, 8 * (seed + 1))
        assert taken(reader, ours.put(seed % 4, sent)) == sent.tobytes()


def test_what_is_written_in_place_is_not_copied() -> None:
    ours, place = arena()
    memory, sent = ours.open(2, 1000), payload(7)
    memory[:] = sent
    mark = ours.put(2, memory)
    assert mark[0] == 2
    assert taken(Neighbour(place), mark) == sent.tobytes()


def test_who_is_late_finds_out() -> None:
    ours, place = arena()
    reader = Neighbour(place)
    mark = ours.put(1, payload(0))
    found = reader.take(mark)
    assert found is not None
    assert found[1]()
    ours.open(1, 1000)  # while it is being read
    assert not found[1]()
    assert reader.take(mark) is None
    again = ours.put(1, payload(1))
    assert reader.take(mark) is None
    assert taken(reader, again) == payload(1).tobytes()


def test_half_written_is_not_there() -> None:
    ours, place = arena()
    ours.put(0, payload(0))
    ours.open(0, 1000)
    reader = Neighbour(place)
    assert all(reader.take((0, generation, 1000)) is None for generation in range(6))


@pytest.mark.parametrize("mark", [(9, 2, 8), (1, 0, 10**9), (1, 2, 0), (2**53 - 1, 2, 8)])
def test_a_mark_that_names_no_payload_gets_none(mark: Mark) -> None:
    ours, place = arena()
    ours.put(1, payload(0))
    assert Neighbour(place).take(mark) is None


def test_the_memory_is_for_reading_only() -> None:
    ours, place = arena()
    found = Neighbour(place).take(ours.put(1, payload(0)))
    assert found is not None
    assert not found[0].flags.writeable


def test_what_is_no_arena_is_not_opened(tmp_path: Path) -> None:
    _, place = arena()
    with (tmp_path / "other").open("w+b") as file:
        for wrong in (
            replace(place, machine="elsewhere"),
            replace(place, fd=file.fileno()),
            replace(place, pid=2**22 + 1),
            replace(place, values=Values(file.fileno(), 0, 8)),
        ):
            with pytest.raises(OSError, match=r"arena|No such"):
                Neighbour(wrong)


@pytest.mark.parametrize("known", [None, 3, [], {}, {"machine": "x"}, {"values": {"fd": 1}}])
def test_what_is_no_place_is_none(known: Any) -> None:
    assert Place.of(known) is None


def test_a_place_with_nonsense_in_it_is_none() -> None:
    _, place = arena()
    good = place.published()
    assert Place.of(json.loads(json.dumps(good))) == place
    for key in ("pid", "fd", "slots", "size"):
        assert Place.of({**good, key: "many"}) is None
        assert Place.of({**good, key: -1}) is None


def test_live_values_are_seen_as_they_are() -> None:
    board = os.memfd_create("board")
    os.ftruncate(board, 4096)
    made = Arena(64, 2, Values(board, 96, 400))
    assert made.place is not None
    reader = Neighbour(made.place)
    os.pwrite(board, bytes(range(100)), 96)
    seen = reader.values(10, 20)
    assert seen is not None
    assert seen.tolist() == list(range(10, 20))
    os.pwrite(board, b"\xff", 96 + 12)
    assert seen[2] == 255
    assert not seen.flags.writeable
    assert [reader.values(*part) for part in ((390, 401), (-4, 4), (8, 8))] == [None] * 3
    os.close(board)


def test_nothing_is_left_of_a_process_that_was_killed() -> None:
    before = sorted(os.listdir("/dev/shm"))
    script = (
        "import json, time, numpy; from decent.transport.shared import Arena;"
        "a = Arena(1 << 20, 4); a.put(0, numpy.zeros(100, 'u1'));"
        "print(json.dumps(a.place.published()), flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    place = Place.of(json.loads(process.stdout.readline()))
    assert place is not None
    Neighbour(place)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(OSError, match="No such"):
        Neighbour(place)
    assert sorted(os.listdir("/dev/shm")) == before


def pair() -> tuple[Shortcuts, Shortcuts]:
    """Workers 1 and 2, in one process."""
    places: dict[int, Place | None] = {}
    one, two = (Shortcuts(4096, [other], LANES, places.get) for other in (2, 1))
    places.update({1: one.arena.place, 2: two.arena.place})
    return one, two


def test_a_window_of_chunks_each_way_do_not_disturb_one_another() -> None:
    one, two = pair()
    marks = {}
    for chunk in range(LANES, 2 * LANES):
        for answer in (False, True):
            memory = one.memory(2, answer, chunk, 100)
            memory[:] = 2 * chunk + answer
            marks[answer, chunk] = one.outgoing(2, answer, (0, chunk), memory)
    for (answer, chunk), mark in marks.items():
        assert mark is not None
        found = two.find(1, mark)
        assert found is not None
        assert found[1]()
        assert set(found[0].tolist()) == {2 * chunk + answer}
    one.memory(2, False, 2 * LANES, 100)  # a window further
    assert two.find(1, marks[False, LANES]) is None  # type: ignore[arg-type]
    assert two.find(1, marks[True, LANES]) is not None  # type: ignore[arg-type]


def test_a_peer_that_never_answers_is_sent_to_over_the_wire() -> None:
    """What is repeated goes inline; after a while so does everything, until the peer restarts."""
    one, _ = pair()
    assert one.outgoing(2, False, (0, 0), payload(0)) is not None
    assert one.outgoing(2, False, (0, 0), payload(0)) is None
    for _ in range(10):
        one.outgoing(2, False, (0, 0), payload(0))
    assert one.outgoing(2, False, (1, 0), payload(0)) is None
    one.forget(2)
    assert one.outgoing(2, False, (2, 0), payload(0)) is not None


def test_strangers_and_those_elsewhere_get_nothing() -> None:
    one, two = pair()
    mark = one.outgoing(2, False, (0, 0), payload(0))
    assert mark is not None
    assert two.find(1, mark) is not None
    assert two.find(3, mark) is None
    assert two.find(None, mark) is None
    assert two.values(1, 0, 8) is None  # nothing is shown
    assert not one.sees(2)
    elsewhere = replace(one.arena.place, machine="elsewhere")  # type: ignore[type-var]
    far = Shortcuts(4096, [1], LANES, lambda peer: elsewhere)
    assert far.find(1, mark) is None
    assert far.outgoing(1, False, (0, 0), payload(0)) is None
    assert far.memory(1, False, 0, 100).size == 100
