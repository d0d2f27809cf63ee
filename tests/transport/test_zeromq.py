"""Frames between two workers over loopback: one listens, the other dials."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from decent.errors import ConfigError
from decent.transport.zeromq import HIGH_WATER, Arrival, ZeroMQ

ANY = "tcp://127.0.0.1:*"
FRAME = 4096
PATIENCE_S = 30.0
Make = Callable[..., ZeroMQ]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[ZeroMQ] = []

    def transport(me: int, address: str = ANY) -> ZeroMQ:
        made.append(ZeroMQ(f"run/{me}/1", address, FRAME))
        return made[-1]

    yield transport
    for each in made:
        with suppress(Exception):
            each.close(0)


def arrivals(at: ZeroMQ, count: int, patience_s: float = PATIENCE_S) -> list[Arrival]:
    """The next `count` messages, or as many as come in time."""
    end_s, found = time.monotonic() + patience_s, list[Arrival]()
    while len(found) < count and time.monotonic() < end_s:
        at.poller.poll(100)
        found += at.receive(count)
    return found


def payload(frames: list[Any]) -> list[bytes]:
    return [bytes(frame) for frame in frames]


def pair(make: Make) -> tuple[ZeroMQ, ZeroMQ]:
    """Worker 0, which has been dialled by worker 1 and knows it."""
    low, high = make(0), make(1)
    high.dial(0, low.address)
    assert high.send(0, [b"hello"])
    [hello] = arrivals(low, 1)
    low.learn(1, hello.route)
    return low, high


@pytest.mark.parametrize("address", [ANY, "ipc://*"])
def test_one_connection_carries_both_ways(make: Make, address: str) -> None:
    low, high = make(0, address), make(1, address)
    high.dial(0, low.address)
    assert not low.knows(1)
    assert high.knows(0)
    vector = np.arange(500.0)
    assert high.send(0, [b"header", vector.data.cast("B")])
    [came] = arrivals(low, 1)
    assert came.dialled is None
    assert came.route == b"run/1/1/0"
    header, body = payload(came.frames)
    assert header == b"header"
    assert np.array_equal(np.frombuffer(body), vector)
    low.learn(1, came.route)
    assert low.send(1, [b"back", b"again"])
    [back] = arrivals(high, 1)
    assert back.dialled == 0
    assert payload(back.frames) == [b"back", b"again"]


def test_order_is_kept_and_each_has_its_turn(make: Make) -> None:
    low, high = pair(make)
    other = make(2)
    other.dial(0, low.address)
    for number in range(20):
        assert high.send(0, [b"1", str(number).encode()])
        assert other.send(0, [b"2", str(number).encode()])
    found = arrivals(low, 40)
    for who in (b"1", b"2"):
        mine = [int(payload(each.frames)[1]) for each in found if payload(each.frames)[0] == who]
        assert mine == list(range(20))


def test_to_nobody_is_dropped_not_blocked(make: Make) -> None:
    low, _ = pair(make)
    assert not low.send(7, [b"who?"])
    assert not low.answer(b"run/7/1", [b"who?"])
    taken = make(3).address
    lonely = make(4)
    lonely.dial(9, taken.replace(taken.rpartition(":")[2], "1"))  # nobody listens on port 1
    accepted = [lonely.send(9, [b"x" * 100]) for _ in range(2 * HIGH_WATER)]
    assert accepted[0]
    assert not any(accepted[HIGH_WATER:])


def test_to_one_that_has_gone_is_dropped_not_blocked(make: Make) -> None:
    low, high = pair(make)
    high.close(0)
    end_s = time.monotonic() + PATIENCE_S
    while low.send(1, [b"x"]) and time.monotonic() < end_s:
        time.sleep(0.01)
    assert time.monotonic() < end_s


def test_one_that_never_reads_is_dropped_not_blocked(make: Make) -> None:
    low, _high = pair(make)
    body = b"x" * FRAME
    sent = 0
    while sent < 100_000 and low.send(1, [body]):
        sent += 1
    assert HIGH_WATER <= sent < 100_000


def test_an_address_in_use_is_said_in_words(make: Make) -> None:
    taken = make(0).address
    with pytest.raises(ConfigError, match="in use") as caught:
        make(1, taken)
    assert taken in str(caught.value)
    assert "runtime.port" in str(caught.value)


@pytest.mark.parametrize("address", ["tcp://192.0.2.1:5555", "nonsense", "tcp://127.0.0.1:x"])
def test_an_impossible_address_is_said_in_words(make: Make, address: str) -> None:
    with pytest.raises(ConfigError, match="expected an address of this machine"):
        make(0, address)


def test_a_frame_that_is_too_large_is_not_accepted(make: Make) -> None:
    low, high = pair(make)
    assert high.send(0, [b"x" * FRAME])
    assert len(arrivals(low, 1)) == 1
    assert high.send(0, [b"y" * (FRAME + 1)])
    assert arrivals(low, 1, patience_s=0.5) == []
    other = make(2)  # and others are served as before
    other.dial(0, low.address)
    assert other.send(0, [b"fine"])
    assert [payload(each.frames) for each in arrivals(low, 1)] == [[b"fine"]]


def test_close_flushes_what_was_sent(make: Make) -> None:
    low, high = pair(make)
    for number in range(50):
        assert high.send(0, [str(number).encode(), b"z" * FRAME])
    high.close()
    assert [int(payload(each.frames)[0]) for each in arrivals(low, 50)] == list(range(50))


def test_dialling_anew_replaces_the_connection(make: Make) -> None:
    first, second, high = make(0), make(0), make(1)
    high.dial(0, first.address)
    assert high.send(0, [b"1"])
    assert len(arrivals(first, 1)) == 1
    high.dial(0, second.address)
    assert high.send(0, [b"2"])
    assert len(arrivals(second, 1)) == 1


# signs of life


def test_signs_of_life_have_a_connection_of_their_own(make: Make) -> None:
    low, high = pair(make)
    assert low.beat(1, [b"early"])  # there is none yet
    assert [payload(each.frames) for each in arrivals(high, 1)] == [[b"early"]]
    beat = _first_beat(low, high)
    assert beat.route == b"run/1/1/0/beat"
    assert beat.name[1:] == [b"1", b"1", b"0"]
    low.learn(1, beat.route)
    assert low.send(1, [b"payload"])
    assert low.beat(1, [b"beat"])
    assert {payload(each.frames)[0] for each in arrivals(high, 2)} == {b"payload", b"beat"}
    assert low._pulse_routes == {1: beat.route}
    assert low._routes == {1: b"run/1/1/0"}


def _first_beat(low: ZeroMQ, high: ZeroMQ) -> Arrival:
    """What cannot be said at once is dropped, so it takes some."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        high.beat(0, [b"beat"])
        for arrival in arrivals(low, 1, 0.05):
            return arrival
    raise AssertionError("no sign of life arrives")


def test_signs_of_life_do_not_wait_behind_what_the_peer_does_not_take(make: Make) -> None:
    """The payloads' connection is full to the brim, at both ends."""
    low, high = pair(make)
    _first_beat(low, high)
    sent = 0
    while high.send(0, [bytes(FRAME)] * 64):
        sent += 1
    assert high.beat(0, [b"now"])
    before = 0
    while payload(arrivals(low, 1)[0].frames) != [b"now"]:
        before += 1
        time.sleep(0.001)
    assert before < sent
