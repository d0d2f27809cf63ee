"""Events: the very contacts and steps of a run, whatever the windows; Poisson in all its counts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.errors import ScheduleError
from decent.schedule import Contact, Never, OnePeer, Periodic, Poisson, View, Window, stream
from decent.simulation.ideal.events import Events, Recorded, Scheduled, Superposed
from decent.testing import Pace, contacts, graphs, schedules
from decent.topology import Topology, family

RING = family("ring", 6).with_models_per_worker(1.5)
STEADY, JITTERY, RANDOM = Pace(), Pace(0.7, 0.4), Pace(1.3, poisson=True)
few = settings(max_examples=40)


def erratic(view: View) -> Iterator[Contact]:
    """A schedule as a plain function, which asks to be woken, draws, and ends."""
    time = -0.5
    for _ in range(int(view.rng.integers(2, 12))):
        time += view.rng.exponential(0.5)
        yield time, None
        yield time, view.draw_peer()


def parted(events: Events, workers: int) -> list[list[tuple[float, int]]]:
    """Each worker's gradients, and the contacts it starts: time and peer."""
    own: list[list[tuple[float, int]]] = [[] for _ in range(workers)]
    for time, worker, peer in zip(*(column.tolist() for column in events), strict=True):
        own[worker].append((time, peer))
    return own


def started(events: Events, workers: int) -> list[list[tuple[float, int]]]:
    return [[each for each in own if each[1] >= 0] for own in parted(events, workers)]


def joined(parts: list[Events]) -> Events:
    return Events(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


@few
@given(graphs(), st.integers(0, 50))
def test_poisson_contacts_are_those_of_a_worker(topology: Topology, seed: int) -> None:
    until = 4.0
    found = Scheduled(topology, Poisson(), seed=seed, gradients=False).until(until)
    expected = [
        contacts(Poisson(), topology, until, worker=i, seed=seed) for i in range(topology.n)
    ]
    assert started(found, topology.n) == expected


@few
@given(graphs(6), schedules(), st.integers(0, 50))
def test_contacts_of_any_schedule_are_those_of_a_worker(
    topology: Topology, schedule: Any, seed: int
) -> None:
    """Every third of time lies between two steps."""
    steps, until, n = 8, 4 + 1 / 3, topology.n
    source = Scheduled(topology, schedule, seed=seed, steps=steps, paces=[STEADY] * n)
    expected = [
        contacts(schedule, topology, until, worker=i, steps=steps, seed=seed) for i in range(n)
    ]
    assert started(source.until(until), n) == expected


def test_a_step_that_is_done_counts_at_once() -> None:
    """The window opens at the fourth of eight steps, and at that very time there is a contact."""
    schedule = Window(0.5, 0.75, keep_budget=False, base=OnePeer(1.0))
    source = Scheduled(RING, schedule, steps=8, paces=[STEADY] * RING.n)
    times = {time for own in started(source.until(8.0), RING.n) for time, _ in own}
    assert times == {4.0, 5.0}


@pytest.mark.parametrize("schedule", [Never(), Periodic(), erratic])
def test_a_schedule_may_have_no_blocks_and_may_end(schedule: Any) -> None:
    found = Scheduled(RING, schedule, seed=3, gradients=False).until(50.0)
    expected = [contacts(schedule, RING, 50.0, worker=i, seed=3) for i in range(RING.n)]
    assert started(found, RING.n) == expected
    assert all(time >= 0 for own in expected for time, _ in own)


@few
@given(
    schedules() | st.just(erratic),
    st.sampled_from([STEADY, JITTERY, RANDOM]),
    st.lists(st.floats(0, 14), max_size=6),
    st.sampled_from([9, None]),
    st.booleans(),
)
def test_windows_do_not_matter(
    schedule: Any, pace: Pace, cuts: list[float], steps: int | None, gradients: bool
) -> None:
    def source() -> Scheduled:
        return Scheduled(
            RING, schedule, seed=5, steps=steps, paces=[pace] * RING.n, gradients=gradients
        )

    if steps is None and isinstance(schedule, Window):
        with pytest.raises(ScheduleError, match="number of steps is not known"):
            source().until(14.0)
        return
    one, many = source(), source()
    whole = one.until(14.0)
    parts = [many.until(time) for time in [*sorted(cuts), 14.0]]
    for (start, end), part in zip(pairwise([0.0, *sorted(cuts), 14.0]), parts, strict=True):
        assert ((part.time >= start) & (part.time < end)).all()
        assert (np.diff(part.time) >= 0).all()
    assert parted(joined(parts), RING.n) == parted(whole, RING.n)
    assert one.end == many.end


def test_nothing_comes_before_0_or_twice() -> None:
    time, worker, peer = np.array([0.0, 1.0]), np.array([0, 1]), np.array([1, 2])
    for source in (
        Scheduled(RING, Poisson()), Scheduled(RING, erratic), Superposed(RING, 2),
        Recorded(6, time, worker, peer),
    ):  # fmt: skip
        assert not len(source.until(0.0).time)
        assert len(source.until(5.0).time)
        for earlier in (0.0, 2.0, 5.0):
            assert not len(source.until(earlier).time)
        assert (source.until(9.0).time >= 5.0).all()


@pytest.mark.parametrize("pace", [STEADY, JITTERY, RANDOM])
def test_gradients_come_at_the_workers_pace(pace: Pace) -> None:
    paces = [pace, *[STEADY] * 5]
    found = Scheduled(RING, Never(), seed=2, paces=paces).until(300.0)
    assert (found.peer == -1).all()
    durations = islice(pace.durations(stream(2, "pace", 0)), 1000)
    times = np.cumsum(list(durations))
    own = found.time[found.worker == 0]
    np.testing.assert_allclose(own, times[times < 300.0], rtol=1e-13)


@pytest.mark.parametrize("pace", [STEADY, JITTERY])
def test_paced_workers_take_as_many_steps_as_planned(pace: Pace) -> None:
    source = Scheduled(RING, Poisson(), steps=200, paces=[pace] * 5 + [Pace(2.0)])
    first = source.until(10.0)
    assert source.end is None
    found = joined([first, source.until(np.inf)])
    assert found.time[-1] == 400.0 < source.end <= 400.0 + 1e-12
    assert np.bincount(found.worker[found.peer == -1]).tolist() == [200] * 6
    assert len(source.until(1e9).time) == 0


def test_a_poisson_run_ends_at_its_time() -> None:
    for gradients in (True, False):
        paces = [Pace(poisson=True)] * RING.n
        source = Scheduled(RING, Poisson(), steps=30, paces=paces, gradients=gradients)
        assert source.end == 30.0
        found = source.until(1e9)
        assert 29.0 < found.time[-1] < 30.0
        assert (found.peer == -1).any() == gradients


@given(st.integers(0, 20), st.integers(1, 4), st.sampled_from([STEADY, RANDOM]))
@settings(max_examples=10)
def test_a_replica_is_the_run_of_the_next_seed(seed: int, replicas: int, pace: Pace) -> None:
    n, paces = RING.n, [pace] * RING.n
    both = Scheduled(RING, Poisson(), seed=seed, paces=paces, replicas=replicas)
    found = parted(both.until(20.0), n * replicas)
    for r in range(replicas):
        alone = parted(Scheduled(RING, Poisson(), seed=seed + r, paces=paces).until(20.0), n)
        mine = [
            [(time, peer if peer < 0 else peer - r * n) for time, peer in own]
            for own in found[r * n : (r + 1) * n]
        ]
        assert mine == alone


UNEVEN = Topology.from_edges(5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 4)], [0.1, 0.7, 1, 2, 0.4])


@pytest.mark.parametrize("gradients", [True, False])
def test_superposed_counts_are_poisson(gradients: bool) -> None:
    """Per worker and per edge: mean and variance over the replicas."""
    n, replicas, until = UNEVEN.n, 3000, 4.0
    source = Superposed(UNEVEN, replicas, seed=1, gradients=gradients)
    found = joined([source.until(time) for time in (0.0, 1.5, 1.75, until)])
    replica, worker = np.divmod(found.worker, n)
    steps = found.peer == -1
    assert (found.peer[~steps] // n == replica[~steps]).all()
    groups = [steps & (worker == i) for i in range(n)]
    groups += [~steps & (worker == i) & (found.peer % n == j) for i, j in UNEVEN.edges]
    assert sum(map(np.count_nonzero, groups)) == len(steps)
    rates = [1.0 * gradients] * n + list(UNEVEN.rates)
    groups, rates = [*groups, steps | True], [*rates, sum(rates)]
    for group, rate in zip(groups, rates, strict=True):
        counts = np.bincount(replica[group], minlength=replicas)
        mean = rate * until
        assert abs(counts.mean() - mean) <= 4 * np.sqrt(mean / replicas)
        spread = np.sqrt((mean + 2 * mean**2) / replicas)  # of a Poisson variance's estimate
        assert abs(counts.var() - mean) <= 4 * spread
        for half in (found.time[group] < 2, found.time[group] >= 2):
            assert abs(half.sum() - replicas * mean / 2) <= 4 * np.sqrt(replicas * mean / 2)


def test_superposed_events_come_in_order_and_in_their_window() -> None:
    source, start = Superposed(RING, 7, seed=4), 0.0
    for end in (0.5, 3.0, 3.0, 9.0):
        found = source.until(end)
        assert ((found.time >= start) & (found.time <= end)).all()
        for replica in range(7):
            assert (np.diff(found.time[found.worker // RING.n == replica]) >= 0).all()
        start = end
    again = Superposed(RING, 7, seed=4).until(0.5)
    first = Superposed(RING, 7, seed=5).until(0.5)
    assert parted(again, 42) == parted(Superposed(RING, 7, seed=4).until(0.5), 42)
    assert parted(again, 42) != parted(first, 42)


def test_one_worker_alone_meets_nobody() -> None:
    alone = family("ring", 1)
    for source in (Superposed(alone, 3), Scheduled(alone, Poisson(), replicas=3)):
        found = source.until(5.0)
        assert len(found.time) > 3
        assert (found.peer == -1).all()
    assert not len(Superposed(alone, 3, gradients=False).until(5.0).time)


def test_recorded_events_are_given_once() -> None:
    time, worker, peer = (
        np.array([0.0, 1.0, 1.0, 2.5]),
        np.array([0, 1, 2, 1]),
        np.array([1, -1] * 2),
    )
    source = Recorded(3, time, worker, peer)
    assert time[-1] < source.end <= time[-1] + 1e-12
    parts = [source.until(end) for end in (0.0, 1.0, 1.0, 2.5, 3.0)]
    assert [len(part.time) for part in parts] == [0, 1, 0, 2, 1]
    for column, given_ in zip(joined(parts), (time, worker, peer), strict=True):
        np.testing.assert_array_equal(column, given_)
    assert not len(Recorded(3, [], [], []).until(9.0).time)


@pytest.mark.parametrize(
    ("time", "worker", "peer", "complaint"),
    [
        ([1.0, 2.0], [0], [1], r"columns of shapes \(2,\), \(1,\), \(1,\)"),
        ([[1.0]], [[0]], [[1]], r"columns of shapes \(1, 1\)"),
        ([1.0, 0.5], [0, 0], [1, 1], "event 1: time 0.5.*never decrease"),
        ([-1.0], [0], [1], "event 0: time -1.0"),
        ([0.0, np.nan], [0, 0], [1, 1], "event 1: time nan"),
        ([np.inf], [0], [1], "event 0: time inf"),
        ([1.0, 2.0], [0, 3], [1, 1], "event 1.*worker 3"),
        ([1.0], [-1], [1], "event 0.*worker -1"),
        ([1.0], [0], [3], "peer 3"),
        ([1.0], [0], [-2], "peer -2"),
        ([1.0], [2], [2], "worker 2, peer 2.*two different workers of 3"),
        ([1.0], [0.5], [1], "worker 0.5"),
        ([1.0], [0], [np.nan], "peer nan"),
        (["soon"], [0], [1], "column.*'soon'.*expected numbers"),
    ],
)
def test_what_is_no_record_is_refused(time: Any, worker: Any, peer: Any, complaint: str) -> None:
    with pytest.raises(ScheduleError, match=complaint):
        Recorded(3, time, worker, peer)
