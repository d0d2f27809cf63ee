"""Batches: every event once, disjoint workers in each, and every worker's own order kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.simulation.ideal.batches import Plan, plan, split
from decent.simulation.ideal.events import Events

Event = tuple[float, int, int]
fewer = settings(max_examples=60)
MODES = {"patient": st.booleans(), "whole": st.booleans()}


@st.composite
def happenings(draw: st.DrawFn) -> tuple[int, Events]:
    """Up to 3 replicas of up to 5 workers: their number, and events one replica after the other,
    as `Superposed` gives them. Times may be equal."""
    n, rows, base = draw(st.integers(1, 5)), list[Event](), 0
    for _ in range(draw(st.integers(1, 3))):
        time = 0.0
        for gap, worker, peer in draw(st.lists(one(n), max_size=25)):
            time += gap
            rows.append((time, base + worker, -1 if peer is None else base + peer))
        base += n
    return base, columns(rows)


def one(n: int) -> st.SearchStrategy[tuple[float, int, int | None]]:
    gap = st.sampled_from([0.0, 0.5, 1.0]) | st.floats(0, 3)
    peer = st.none() if n == 1 else st.none() | st.integers(0, n - 1)
    drawn = st.tuples(gap, st.integers(0, n - 1), peer)
    return drawn.map(lambda each: (*each[:2], None if each[1] == each[2] else each[2]))


def columns(rows: list[Event]) -> Events:
    time, worker, peer = zip(*rows, strict=True) if rows else ((), (), ())
    return Events(np.array(time, float), np.array(worker, np.int64), np.array(peer, np.int64))


def rows_of(events: Events) -> list[Event]:
    return list(zip(*(column.tolist() for column in events), strict=True))


def unpacked(made: Plan) -> Iterator[list[tuple[Event, list[float]]]]:
    """Batch by batch: its events, and how long it is since each end's event before."""
    start = 0
    assert sum(g + 2 * e for g, e in made.sizes) == len(made.worker) == len(made.elapsed)
    for g, e in made.sizes:
        assert g + e > 0
        end = start + g + 2 * e
        time, worker, elapsed, side = (
            column[start:end].tolist()
            for column in (made.time, made.worker, made.elapsed, made.side)
        )
        assert side == [0] * g + [1] * e + [2] * e
        assert time[g : g + e] == time[g + e :]
        steps = [((time[k], worker[k], -1), [elapsed[k]]) for k in range(g)]
        ends = [(k, k + e) for k in range(g, g + e)]
        yield steps + [((time[i], worker[i], worker[j]), [elapsed[i], elapsed[j]]) for i, j in ends]
        start = end


def histories(workers: int, events: list[Event]) -> list[list[Event]]:
    """Each worker's own events, in order."""
    own: list[list[Event]] = [[] for _ in range(workers)]
    for event in events:
        own[event[1]].append(event)
        if event[2] >= 0:
            own[event[2]].append(event)
    return own


@fewer
@given(drawn=happenings(), **MODES)
def test_every_event_once_in_its_workers_order(
    patient: bool, whole: bool, drawn: tuple[int, Events]
) -> None:
    workers, events = drawn
    made, left = plan(events, np.zeros(workers), patient=patient, whole=whole)
    done = [event for batch in unpacked(made) for event, _ in batch]
    assert not (whole and len(left.time))
    assert Counter(done + rows_of(left)) == Counter(rows_of(events))
    assert histories(workers, done + rows_of(left)) == histories(workers, rows_of(events))


@fewer
@given(drawn=happenings(), **MODES)
def test_a_batch_touches_each_worker_once(
    patient: bool, whole: bool, drawn: tuple[int, Events]
) -> None:
    workers, events = drawn
    made, _ = plan(events, np.zeros(workers), patient=patient, whole=whole)
    for batch in unpacked(made):
        ends = [end for (_, *both), _ in batch for end in both if end >= 0]
        assert len(set(ends)) == len(ends)
        kinds = {peer >= 0 for (_, _, peer), _ in batch}
        assert not patient or len(kinds) == 1


@fewer
@given(drawn=happenings(), cuts=st.lists(st.integers(0, 75), max_size=4), **MODES)
def test_elapsed_is_since_the_workers_event_before(
    patient: bool, whole: bool, drawn: tuple[int, Events], cuts: list[int]
) -> None:
    """Also across windows, whose leftovers are carried on."""
    workers, events = drawn
    last, left = np.full(workers, -1.0), Events.none()
    clock, done = [-1.0] * workers, list[Event]()
    ends = sorted(min(cut, len(events.time)) for cut in cuts)
    for start, end in pairwise([0, *ends, len(events.time)]):
        window = left.then(events.of(np.arange(start, end)))
        finish = whole or end == len(events.time)
        made, left = plan(window, last, patient=patient, whole=finish)
        for (time, *both), elapsed in (each for batch in unpacked(made) for each in batch):
            who = [worker for worker in both if worker >= 0]
            assert [time - clock[worker] for worker in who] == elapsed
            for worker in who:
                clock[worker] = time
            done.append((time, both[0], both[1]))
        assert last.tolist() == clock
    assert not len(left.time)
    assert histories(workers, done) == histories(workers, rows_of(events))


@fewer
@given(happenings())
def test_as_few_batches_as_the_longest_chain_allows(drawn: tuple[int, Events]) -> None:
    workers, events = drawn
    depth, due = [0] * workers, Counter[tuple[int, Event]]()
    for event in rows_of(events):
        ends = [worker for worker in event[1:] if worker >= 0]
        level = max(depth[worker] for worker in ends)
        due[level, event] += 1
        for worker in ends:
            depth[worker] = level + 1
    made, _ = plan(events, np.zeros(workers))
    found = Counter((k, event) for k, batch in enumerate(unpacked(made)) for event, _ in batch)
    assert found == due


def test_what_is_left_are_the_small_batches_at_the_end() -> None:
    """Ten gradients at once, then one worker goes on alone."""
    crowd = [(1.0, worker, -1) for worker in range(10)]
    alone = [(2.0 + k, 0, -1) for k in range(5)]
    made, left = plan(columns(crowd + alone), np.zeros(10), whole=False)
    assert made.sizes == [(10, 0)]
    assert rows_of(left) == alone


def test_patience_takes_more_gradients_at_once() -> None:
    """A chain of exchanges, and a gradient at each worker after its own last one."""
    chain = [(float(k), k, k + 1) for k in range(5)]
    steps = [(10.0, worker, -1) for worker in range(6)]
    eager, _ = plan(columns(chain + steps), np.zeros(6))
    patient, _ = plan(columns(chain + steps), np.zeros(6), patient=True)
    assert sum(g > 0 for g, _ in eager.sizes) == 5
    assert [size for size in patient.sizes if size[0]] == [(6, 0)]


@fewer
@given(happenings(), st.integers(1, 40))
def test_groups_are_consecutive_and_no_larger_than_asked(
    drawn: tuple[int, Events], most: int
) -> None:
    workers, events = drawn
    made, _ = plan(events, np.zeros(workers))
    groups = list(split(made, most))
    assert [size for _, sizes in groups for size in sizes] == made.sizes
    covered = [row for span, _ in groups for row in range(len(made.worker))[span]]
    assert covered == list(range(len(made.worker)))
    for span, sizes in groups:
        rows = span.stop - span.start
        assert rows == sum(g + 2 * e for g, e in sizes)
        assert rows <= most or len(sizes) == 1
