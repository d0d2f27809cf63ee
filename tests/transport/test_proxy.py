"""Two workers with something between them: neither notices, whoever comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from decent.transport.proxy import Proxy, Way
from decent.transport.zeromq import Arrival, ZeroMQ

PATIENCE_S = 30.0
FRAME = 4096
Carry = Callable[[], None]


class Three:
    """Worker 1 dials worker 0 through a proxy."""

    def __init__(self) -> None:
        self.addresses: dict[int, str] = {}
        self.proxy = Proxy([(0, 1)], self.addresses.get, FRAME)
        self.ends = [self.worker(0, 1), self.worker(1, 1)]
        self.dial()

    def worker(self, me: int, epoch: int) -> ZeroMQ:
        made = ZeroMQ(f"run/{me}/{epoch}", "tcp://127.0.0.1:*", FRAME)
        self.addresses[me] = made.address
        return made

    def dial(self) -> None:
        self.ends[1].dial(0, self.proxy.addresses[0, 1])

    def restart(self, me: int) -> None:
        self.ends[me].close(0)
        self.ends[me] = self.worker(me, 2)

    def carry(self) -> list[Way]:
        """What has come to the proxy goes on."""
        self.proxy.wait(0.02)
        self.proxy.refresh()
        passing = list(self.proxy.receive(100))
        for way, frames in passing:
            self.proxy.send(way, frames)
        return [way for way, _ in passing]

    def arrivals(self, at: int, count: int) -> list[Arrival]:
        end_s, found = time.monotonic() + PATIENCE_S, list[Arrival]()
        while len(found) < count and time.monotonic() < end_s:
            self.carry()
            found += self.ends[at].receive(count)
        return found

    def hello(self, word: bytes) -> Arrival:
        """Worker 1 speaks until it is heard: what was said while nobody listened is lost."""
        end_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < end_s:
            self.ends[1].send(0, [word])
            for _ in range(5):
                self.carry()
                for arrival in self.ends[0].receive(100):
                    if bytes(arrival.frames[0]) == word:
                        self.ends[0].learn(1, arrival.route)
                        return arrival
        raise AssertionError("never heard")


@pytest.fixture
def three() -> Iterator[Three]:
    made = Three()
    yield made
    for end in made.ends:
        with suppress(Exception):
            end.close(0)
    made.proxy.close()


def test_both_ways_in_order_and_under_the_dialler_s_name(three: Three) -> None:
    assert three.hello(b"hello").route == b"run/1/1/0"
    for k in range(50):
        assert three.ends[1].send(0, [b"up %d" % k, bytes(1000)])
        assert three.ends[0].send(1, [b"down %d" % k])
    ups = [bytes(each.frames[0]) for each in three.arrivals(0, 50)]
    downs = three.arrivals(1, 50)
    assert [up for up in ups if up != b"hello"] == [b"up %d" % k for k in range(50)]
    assert [bytes(each.frames[0]) for each in downs] == [b"down %d" % k for k in range(50)]
    assert {each.dialled for each in downs} == {0}


def test_the_dialler_comes_back(three: Three) -> None:
    three.hello(b"hello")
    three.restart(1)
    three.dial()
    assert three.hello(b"again").route == b"run/1/2/0"
    assert three.ends[0].send(1, [b"welcome"])
    assert [bytes(each.frames[0]) for each in three.arrivals(1, 1)] == [b"welcome"]


def test_the_dialled_comes_back_elsewhere(three: Three) -> None:
    three.hello(b"hello")
    three.restart(0)
    assert three.hello(b"are you there").route == b"run/1/1/0"
    assert three.ends[0].send(1, [b"yes"])
    assert [bytes(each.frames[0]) for each in three.arrivals(1, 1)] == [b"yes"]


def test_nobody_there_is_no_error(three: Three) -> None:
    assert not three.proxy.send(Way((0, 1), b"nobody", False), [b"x"])
    three.addresses.clear()
    assert not three.proxy.send(Way((0, 1), b"somebody", True), [b"x"])
