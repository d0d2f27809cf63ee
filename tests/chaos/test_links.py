"""What an edge's faults do to messages, in virtual time."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.chaos.faults import KINDS, Fault, Kind
from decent.chaos.links import HELD_S, MOST, Frames, Link

HARMLESS: list[Kind] = ["delay", "slow", "duplicate", "reorder"]
EDGE_KINDS = [kind for kind in KINDS if kind not in ("kill", "pause")]


def fault(kind: Kind, span_s: float, amount: float = 0.0, index: int = 0, **more: str) -> Fault:
    return Fault(index, 0.0, kind, (0, 1), None, span_s, amount, **more)


def named(number: int) -> Frames:
    return [b"header %d" % number, bytes(100)]


class Crossing:
    """Messages on one way, sent and come out so far."""

    def __init__(self, seed: int = 0) -> None:
        self.link: Link[str] = Link(seed)
        self.out: list[tuple[float, Frames]] = []

    def send(self, frames: Frames, now_s: float, way: str = "up") -> None:
        self.link.take(way, frames, now_s)
        self.see(now_s)

    def see(self, now_s: float) -> None:
        self.out += [(now_s, frames) for _, frames in self.link.due(now_s)]

    def until(self, end_s: float) -> None:
        while self.link.next_s() <= end_s:
            self.see(self.link.next_s())

    @property
    def numbers(self) -> list[int]:
        return [int(frames[0].split()[1]) for _, frames in self.out]


def test_without_faults_all_comes_at_once_and_in_order() -> None:
    crossing = Crossing()
    for k in range(20):
        crossing.send(named(k), k / 10)
    assert crossing.numbers == list(range(20))
    assert [s for s, _ in crossing.out] == [k / 10 for k in range(20)]


@settings(max_examples=100)
@given(
    st.integers(0, 99),
    st.lists(
        st.tuples(
            st.sampled_from(["delay", "slow"]), st.floats(0, 3), st.floats(0, 2), st.floats(0, 1)
        ),
        max_size=4,
    ),
    st.lists(st.floats(0, 5), max_size=30).map(sorted),
)
def test_what_only_takes_time_keeps_the_order_and_loses_nothing(
    seed: int, faults: list[tuple[Kind, float, float, float]], times: list[float]
) -> None:
    crossing = Crossing(seed)
    for k, (kind, at_s, span_s, amount) in enumerate(sorted(faults, key=lambda each: each[1])):
        scale = 1e4 if kind == "slow" else 1.0
        crossing.link.start(fault(kind, span_s, 0.01 + scale * amount, k), at_s)
    for k, now_s in enumerate(times):
        crossing.until(now_s)
        crossing.send(named(k), now_s)
    crossing.until(100.0)
    assert crossing.numbers == list(range(len(times)))


def test_a_partition_carries_nothing_and_passes() -> None:
    crossing = Crossing()
    crossing.link.start(fault("partition", 1.0), 0.0)
    for k in range(20):
        crossing.send(named(k), k / 10, "up" if k % 2 else "down")
    assert crossing.numbers == list(range(10, 20))
    assert crossing.link.hits["partition"] == 10


def test_duplicates_come_twice() -> None:
    crossing = Crossing()
    crossing.link.start(fault("duplicate", 10.0, 0.5), 0.0)
    for k in range(100):
        crossing.send(named(k), 0.01 * k)
    counts = Counter(crossing.numbers)
    assert {*counts} == {*range(100)}
    assert crossing.link.hits["duplicate"] == sum(n == 2 for n in counts.values())
    assert 20 < crossing.link.hits["duplicate"] < 80


def test_what_is_held_back_is_overtaken_and_comes() -> None:
    crossing = Crossing()
    crossing.link.start(fault("reorder", 10.0, 0.5), 0.0)
    for k in range(100):
        crossing.until(0.01 * k)
        crossing.send(named(k), 0.01 * k)
    crossing.until(1.0 + HELD_S)
    assert sorted(crossing.numbers) == list(range(100))
    assert crossing.numbers != list(range(100))


@pytest.mark.parametrize("target", ["header", "payload", "either"])
def test_damage_is_done_where_it_is_wanted(target: str) -> None:
    crossing = Crossing()
    crossing.link.start(fault("corrupt", 10.0, 0.5, target=target), 0.0)
    for k in range(200):
        crossing.send([b"header", b"payload"], 0.01 * k)
    hit = {
        (frames[0] != b"header", frames[1] != b"payload")
        for _, frames in crossing.out
        if frames != [b"header", b"payload"]
    }
    wanted = {"header": {(True, False)}, "payload": {(False, True)}}
    assert hit == wanted.get(target, {(True, False), (False, True)})
    assert all(len(frames[0]) == 6 and len(frames[1]) == 7 for _, frames in crossing.out)


def test_a_slow_edge_carries_so_many_bytes() -> None:
    crossing = Crossing()
    crossing.link.start(fault("slow", 10.0, 1000.0), 0.0)
    for _ in range(10):
        crossing.send([bytes(100)], 0.0)
    crossing.until(100.0)
    assert [s for s, _ in crossing.out] == pytest.approx([0.1 * (k + 1) for k in range(10)])


def test_when_it_is_fast_again_all_comes_through() -> None:
    crossing = Crossing()
    crossing.link.start(fault("slow", 1.0, 10.0), 0.0)
    for k in range(10):
        crossing.send(named(k), 0.1)
    crossing.until(1.0)
    assert crossing.numbers == list(range(10))


def test_what_waits_is_bounded() -> None:
    crossing = Crossing()
    crossing.link.start(fault("delay", 10.0, 5.0), 0.0)
    for k in range(2 * MOST):
        crossing.send(named(k), 0.0)
    crossing.until(100.0)
    assert crossing.numbers == list(range(MOST))
    assert crossing.link.dropped == MOST


@pytest.mark.parametrize("kind", EDGE_KINDS)
def test_afterwards_all_is_as_before(kind: Kind) -> None:
    crossing = Crossing()
    crossing.link.start(fault(kind, 1.0, 1.0), 0.0)
    crossing.send(named(0), 0.5)
    crossing.until(5.0)
    crossing.out.clear()
    for k in range(1, 10):
        crossing.send(named(k), 5.0 + k)
    assert [(s, frames) for s, frames in crossing.out] == [
        (5.0 + k, named(k)) for k in range(1, 10)
    ]
