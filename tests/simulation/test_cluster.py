"""Virtual time: the same to the bit for the same seed, and what faults do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent import testing
from decent.dynamics import Acid, Gossip
from decent.errors import MissingExtra
from decent.schedule import Never, Poisson, stream
from decent.testing import (
    Cluster,
    Network,
    Pace,
    cluster,
    cut,
    duplicate,
    kill,
    lose,
    pause,
    slow,
)
from decent.topology import Link, family
from decent.worker import StepClock, Worker


def learner(worker: Worker) -> None:
    worker.slots.array[0] *= 0.95


def eventful(seed: int) -> tuple[list[dict[str, Any]], Cluster]:
    trace: list[dict[str, Any]] = []
    graph = family("torus", 9)
    c = cluster(
        graph, Acid(), Poisson(), 10, steps=25, learner=learner, trace=trace, seed=seed,
        clock=StepClock, paces=[Pace(1.0, 0.3)] * 9,
        network=Network(graph, Link(0.1, 1e5), seed, jitter=0.5, loss=0.05, duplicate=0.05),
        faults=[kill(3, 7.0), pause(5, 4.0, 6.0), cut(0, 1, 3.0, 9.0), slow(2, 2.0, 5.0, 5.0)],
    )  # fmt: skip
    return trace, c.run(300.0)


def test_equal_seeds_give_equal_runs_to_the_bit() -> None:
    (trace, one), (again, two) = eventful(1), eventful(1)
    assert one.finished()
    assert len(trace) > 500
    assert trace == again
    assert one.now_s == two.now_s
    for me in one.workers:
        np.testing.assert_array_equal(one.workers[me].slots.array, two.workers[me].slots.array)
    other_trace, other = eventful(2)
    assert other_trace != trace
    assert not np.array_equal(other.workers[0].slots.array, one.workers[0].slots.array)


def step_times(**options: Any) -> list[list[float]]:
    trace: list[dict[str, Any]] = []
    c = cluster(
        family("line", 2), Gossip(), Never(), steps=8, learner=learner, trace=trace,
        clock=StepClock, merge=False, **options,
    )  # fmt: skip
    c.run(100.0)
    steps = [event for event in trace if event["event"] == "gradient"]
    return [[event["s"] for event in steps if event["worker"] == me] for me in (0, 1)]


def test_steps_take_what_the_pace_says() -> None:
    steady = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert step_times() == [steady, steady]
    assert step_times(paces=[Pace(2.0), Pace(1.0)]) == [[2 * s for s in steady], steady]
    jittery, calm = step_times(paces=[Pace(1.0, 0.5), Pace(1.0)])
    assert calm == steady
    assert len(set(np.diff(jittery).round(6))) == 7
    durations = Pace(3.0, 0.5).durations(stream(0))
    drawn = [next(durations) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(3.0, rel=4 * 0.53 / np.sqrt(4000))


def test_faults_befall_their_worker_in_their_time() -> None:
    steady = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert step_times(faults=[kill(1, 3.5)]) == [steady, steady[:3]]
    paused = [1.0, 2.0, 6.5, 7.5, 8.5, 9.5, 10.5, 11.5]
    assert step_times(faults=[pause(0, 2.5, 4.0)]) == [paused, steady]
    slowed = [1.0, 2.0, 5.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    assert step_times(faults=[slow(0, 3.0, 1.5, 6.0)]) == [slowed, steady]


def test_faults_of_the_network_begin_and_end() -> None:
    faults = [lose(0.25, 1.0, 2.0), lose(0.5, 2.0, 2.0), duplicate(0.5, 1.0), cut(0, 1, 1.0, 1.0)]
    c = cluster(family("line", 3), Gossip(), Never(), merge=False, faults=faults)
    seen = []
    for time in (0.5, 1.5, 2.5, 3.5, 4.5):
        c.run(time)
        seen.append((c.network.loss, c.network.duplicate, len(c.network.cut)))
    assert seen == [(0, 0, 0), (0.25, 0.5, 1), (0.75, 0.5, 0), (0.5, 0.5, 0), (0, 0.5, 0)]


def test_a_paused_worker_gets_its_messages_when_it_wakes() -> None:
    c = cluster(
        family("line", 2), Gossip(), Poisson(), merge=False, faults=[pause(1, 1.0, 2.0)],
        network=Network(family("line", 2), Link(0.1)),
    )  # fmt: skip
    c.run(2.9)
    received = c.workers[1].peers[0].heard_s
    assert received <= 1.0
    c.run(3.05)
    assert c.workers[1].peers[0].heard_s == 3.0


def test_time_stops_where_it_is_told_to() -> None:
    c = cluster(family("line", 2), Gossip(), Poisson(), merge=False)
    assert c.run(7.25).now_s == 7.25
    c.run(20.0, until=lambda c: c.now_s > 9.0)
    assert 9.0 < c.now_s < 10.0
    assert c.total().shape == (1, 8)


def test_strategies_without_hypothesis_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(testing.importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"[Pp]ip install decent\[testing\]"):
        testing.graphs()
