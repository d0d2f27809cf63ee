"""The global merge: the weighted mean of all who live, whatever is lost and whoever dies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Acid, Array, Gossip
from decent.errors import Declared, RuntimeFault
from decent.schedule import Never, Poisson, stream
from decent.testing import (
    Cluster,
    Limits,
    Network,
    Pace,
    cluster,
    cut,
    fault_scripts,
    graphs,
    kill,
    lose,
    pause,
)
from decent.topology import Link, Topology, family
from decent.worker import Packet, Worker, spanning_tree
from decent.worker import messages as m

from .common import examples

PATIENT = Limits(chunk=3, merge_window=2, silent_s=1e9, dead_s=1e9, start_s=1e9)
MORTAL = Limits(chunk=3, merge_window=2, silent_s=2.0, dead_s=5.0, start_s=10.0)


def no_step(worker: Worker) -> None:
    pass


def initial(topology: Topology, values: int, seed: int) -> Array:
    return stream(seed, "initial").normal(size=(topology.n, values))


def networks(topology: Topology, seed: int) -> st.SearchStrategy[Network]:
    links = st.sampled_from([0.0, 0.2, 1.0]).map(Link)
    return st.builds(
        lambda link, jitter: Network(topology, link, seed, jitter), links, st.floats(0, 1)
    )


@examples(50)
@given(st.data(), graphs(7), st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_everyone_gets_the_weighted_mean(
    data: st.DataObject, graph: Topology, values: int, chunk: int, seed: int
) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=graph.n, max_size=graph.n))
    start = initial(graph, values, seed)
    c = cluster(
        graph, Gossip(), Never(), initial=start, steps=2, learner=no_step, seed=seed,
        network=data.draw(networks(graph, seed)), limits=replace(PATIENT, chunk=chunk),
        faults=data.draw(fault_scripts(graph.n, 15.0)), weights=weights,
    )  # fmt: skip
    c.run(300.0)
    assert c.finished()
    expected = np.average(start, axis=0, weights=weights)
    for reduction in c.merges.values():
        np.testing.assert_allclose(reduction.result, expected, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(reduction.result, c.merges[0].result)
        assert reduction.among == tuple(range(graph.n))


@examples(50)
@given(st.data(), graphs(6), st.integers(1, 9), st.integers(0, 99))
def test_no_exchange_is_half_done_when_the_merge_begins(
    data: st.DataObject, graph: Topology, values: int, seed: int
) -> None:
    graph = graph.with_rates([min(rate, 2.0) for rate in graph.rates])
    start = initial(graph, values, seed)
    c = cluster(
        graph, Gossip(), Poisson(), initial=start, steps=6, learner=no_step, seed=seed,
        network=data.draw(networks(graph, seed)), limits=PATIENT,
        faults=data.draw(fault_scripts(graph.n, 15.0)),
    )  # fmt: skip
    c.run(300.0)
    assert c.finished()
    for reduction in c.merges.values():
        np.testing.assert_allclose(reduction.result, start.mean(axis=0), rtol=0, atol=1e-13)


@examples(80)
@given(st.data(), graphs(7), st.integers(1, 7), st.integers(0, 99))
def test_the_living_finish_whoever_dies_and_whenever(
    data: st.DataObject, graph: Topology, values: int, seed: int
) -> None:
    start = initial(graph, values, seed)
    c = cluster(
        graph, Gossip(), Never(), initial=start, steps=3, learner=no_step, seed=seed,
        network=data.draw(networks(graph, seed)), limits=MORTAL,
        faults=data.draw(fault_scripts(graph.n, 12.0, deaths=True, most=6)),
        paces=[Pace(data.draw(st.floats(0.1, 5))) for _ in range(graph.n)],
    )  # fmt: skip
    c.run(15.0 + 60.0 + 30.0 * graph.n)
    assert c.finished(), {me: (r.dead, r.closed) for me, r in c.merges.items()}
    check_views(c, start)
    assert all(why == "killed" or "merged without it" in why for why in c.down.values())


@examples(80)
@given(st.data(), graphs(7), st.integers(1, 7), st.integers(0, 99))
def test_all_who_live_have_one_result(
    data: st.DataObject, graph: Topology, values: int, seed: int
) -> None:
    """Whoever dies, and when: also while the result is handed out. (Where nobody who lives is taken
    for dead, that is.)"""
    deaths = st.builds(kill, st.integers(0, graph.n - 1), st.floats(0, 15))
    loss = st.builds(lose, st.floats(0, 0.2), st.floats(0, 5), st.floats(0, 10))
    c = cluster(
        graph, Gossip(), Never(), values=values, steps=3, learner=no_step, seed=seed,
        network=data.draw(networks(graph, seed)), limits=replace(MORTAL, dead_s=12.0),
        faults=data.draw(st.lists(deaths, max_size=3)) + data.draw(st.lists(loss, max_size=1)),
    )  # fmt: skip
    c.run(300.0 + 60.0 * graph.n)
    assert c.finished()
    assert {*c.down.values()} <= {"killed"}
    check_views(c, initial(graph, values, seed))
    assert len({c.merges[me].among for me in c.alive}) <= 1


@pytest.mark.parametrize("at_s", [6.5, 6.6, 6.7, 6.8])
def test_nobody_gets_another_result_than_those_who_have_one(at_s: float) -> None:
    """Worker 1 hands the result on to 2 when it dies; the others have all of it before it is known
    to be dead."""
    graph = family("ring", 4)
    c = cluster(
        graph, Gossip(), Never(), values=20, steps=3, learner=no_step, limits=MORTAL,
        network=Network(graph, Link(0.2)), faults=[kill(1, at_s)],
    )  # fmt: skip
    c.run(at_s + 3.0)
    assert [c.merges[me].result is not None for me in (0, 2, 3)] == [True, False, True]
    c.run(60.0)
    assert c.finished()
    assert {c.merges[me].among for me in c.alive} == {(0, 1, 2, 3)}
    check_views(c, initial(graph, 20, 0))


def check_views(c: Cluster, start: Array) -> None:
    """One result for each set of merged workers, and it is their mean."""
    for me in c.alive:
        reduction = c.merges[me]
        assert me in reduction.among
        expected = start[list(reduction.among)].mean(axis=0)
        np.testing.assert_allclose(reduction.result, expected, rtol=0, atol=1e-13)
    results = {(r.among, r.result.tobytes()) for me, r in c.merges.items() if me in c.alive}
    assert len(results) == len({among for among, _ in results})


@examples(40)
@given(st.data(), graphs(8), st.integers(0, 99))
def test_the_dead_before_the_merge_are_left_out_exactly(
    data: st.DataObject, graph: Topology, seed: int
) -> None:
    dead = data.draw(st.sets(st.integers(0, graph.n - 1), max_size=graph.n - 1))
    start = initial(graph, 5, seed)
    c = cluster(
        graph, Gossip(), Never(), initial=start, steps=20, learner=no_step, limits=MORTAL,
        faults=[kill(worker, 1.0) for worker in dead], network=Network(graph, Link(0.1)),
    )  # fmt: skip
    c.run(60.0 + 10.0 * graph.n)
    assert c.finished()
    living = tuple(worker for worker in range(graph.n) if worker not in dead)
    assert {c.merges[me].among for me in living} == {living}
    check_views(c, start)


def test_all_who_live_are_merged_though_the_dead_cut_the_graph() -> None:
    c = cluster(
        family("line", 7), Gossip(), Never(), steps=10, learner=no_step, limits=MORTAL,
        faults=[kill(1, 1.0), kill(4, 2.0)],
    )  # fmt: skip
    c.run(200.0)
    assert c.finished()
    assert {c.merges[me].among for me in c.alive} == {(0, 2, 3, 5, 6)}


def test_a_root_that_only_the_tree_knows_may_die_too() -> None:
    """On the line 0–1–2–3, 1 dies, so 2 hangs on 0, which is no neighbour of anyone who lives."""
    c = cluster(
        family("line", 4), Gossip(), Never(), steps=10, learner=no_step, limits=MORTAL,
        faults=[kill(1, 1.0), kill(0, 20.0)],
        paces=[Pace(1.0), Pace(1.0), Pace(1.0), Pace(4.0)],
    )  # fmt: skip
    c.run(200.0)
    assert c.finished()
    assert {c.merges[me].among for me in c.alive} == {(2, 3)}


def test_a_slow_worker_beyond_a_cut_is_waited_for() -> None:
    c = cluster(
        family("line", 4), Gossip(), Never(), steps=5, learner=no_step, limits=MORTAL,
        faults=[kill(1, 1.0)], paces=[Pace(1.0), Pace(1.0), Pace(20.0), Pace(20.0)],
    )  # fmt: skip
    c.run(300.0)
    assert c.finished()
    assert {c.merges[me].among for me in c.alive} == {(0, 2, 3)}


@dataclass
class CloseGetsLost(Network):
    """The root's last word never reaches worker 1."""

    def arrivals(self, packet: Packet, now_s: float) -> list[float]:
        message = packet.message
        lost = isinstance(message, m.Close) and (message.src, message.dst) == (0, 1)
        return [] if lost else super().arrivals(packet, now_s)


def test_another_merge_may_come_long_after_the_first() -> None:
    """Meanwhile nothing is heard of those who are next to us in the tree alone."""
    c = cluster(
        family("line", 4), Gossip(), Never(), steps=10, learner=no_step, limits=MORTAL,
        faults=[kill(1, 1.0)],
    )  # fmt: skip
    c.run(60.0)
    assert c.finished()
    c.run(100.0, until=lambda c: False)
    second = {}

    def merge_again(worker: Worker) -> None:
        second[worker.me] = worker.reduce(1, np.full(5, float(worker.me)), 1.0, c.now_s)

    for me in c.alive:
        c.at(100.0 + 10 * (me == 2), lambda me=me: c._run(c.workers[me], merge_again))
    c.run(130.0, until=lambda c: False)
    assert not c.down.keys() - {1}
    assert {(r.among, *r.result) for r in second.values()} == {((0, 2, 3), *[5 / 3] * 5)}


def test_who_is_closed_tells_those_who_missed_it() -> None:
    """Worker 1 never hears that all is done, and becomes the root when the root dies."""
    graph = family("complete", 3)
    c = cluster(
        graph, Gossip(), Never(), steps=3, learner=no_step, limits=MORTAL,
        network=CloseGetsLost(graph), faults=[kill(0, 4.0)],
    )  # fmt: skip
    c.run(4.0)
    assert [c.merges[me].closed for me in range(3)] == [True, False, True]
    c.run(30.0)
    assert c.finished()
    assert c.merges[1].among == c.merges[2].among == (0, 1, 2)


def test_who_was_declared_dead_has_no_say_in_who_else_is() -> None:
    """Worker 2 could hear nobody, and takes its neighbours for dead; they took it for dead."""
    c = cluster(
        family("ring", 4), Gossip(), Never(), steps=5, learner=no_step, limits=MORTAL,
        faults=[cut(1, 2, 2.0, 12.0), cut(2, 3, 2.0, 12.0)],
        paces=[Pace(1.0), Pace(1.0), Pace(4.0), Pace(10.0)],
    )  # fmt: skip
    c.run(200.0)
    assert c.finished()
    assert list(c.down) == [2]
    assert [c.merges[me].among for me in (0, 1, 3)] == [(0, 1, 3)] * 3


def test_a_worker_declared_dead_says_so() -> None:
    c = cluster(
        family("ring", 4), Gossip(), Never(), steps=5, learner=no_step, limits=MORTAL,
        faults=[pause(2, 2.0, 40.0)],
    )  # fmt: skip
    c.run(35.0)
    assert [c.merges[me].among for me in (0, 1, 3)] == [(0, 1, 3)] * 3
    c.run(60.0)
    assert list(c.down) == [2]
    assert "worker 2 was silent so long that its peers merged without it" in c.down[2]
    assert isinstance(c.workers[2].context.fatal, Declared)


def test_a_worker_that_slept_does_not_declare_the_others_dead() -> None:
    c = cluster(
        family("ring", 4), Gossip(), Poisson(), merge=False, faults=[pause(1, 2.0, 10.0)],
        limits=replace(MORTAL, dead_s=20.0),
    )  # fmt: skip
    c.workers[1].context.limits = MORTAL  # it alone would be so impatient
    c.run(30.0)
    assert {peer.state for peer in c.workers[1].peers.values()} == {"alive"}
    assert {peer.state for peer in c.workers[0].peers.values()} == {"alive"}


def test_two_who_lose_sight_of_each_other_each_keep_what_they_have() -> None:
    start = np.array([[1.0, 2.0], [3.0, 5.0]])
    c = cluster(
        family("line", 2), Gossip(), Never(), initial=start, steps=5, learner=no_step,
        limits=MORTAL, faults=[cut(0, 1, 2.0)],
    )  # fmt: skip
    c.run(60.0)
    assert c.finished()
    check_views(c, start)
    assert [c.merges[me].among for me in (0, 1)] == [(0,), (1,)]


@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_runs(n: int) -> None:
    start = initial(family("line", n), 7, 0)
    c = cluster(
        family("line", n), Acid(), Never(), initial=start, steps=2, learner=no_step,
        weights=[3.0, 1.0][:n],
    )  # fmt: skip
    c.run(10.0)
    assert c.finished()
    expected = np.average(start, axis=0, weights=[3.0, 1.0][:n])
    for me in range(n):
        np.testing.assert_allclose(c.merges[me].result, expected, rtol=1e-14)


def test_a_diverged_worker_is_not_merged() -> None:
    def learner(worker: Worker) -> None:
        if worker.me == 1:
            worker.slots.array[0, 3] = np.inf

    c = cluster(family("ring", 3), Gossip(), Never(), steps=2, learner=learner, limits=MORTAL)
    c.run(60.0)
    assert c.finished()
    assert "training has diverged" in c.down[1]
    assert isinstance(c.workers[1].context.fatal, RuntimeFault)
    assert c.merges[0].among == (0, 2)
    assert np.isfinite(c.merges[0].result).all()


@examples(50)
@given(graphs(8), st.data())
def test_the_tree_spans_the_living_along_edges_where_it_can(
    graph: Topology, data: st.DataObject
) -> None:
    dead = frozenset(data.draw(st.sets(st.integers(0, graph.n - 1), max_size=graph.n - 1)))
    parents = spanning_tree(graph, dead)
    assert set(parents) == set(range(graph.n)) - dead
    root = min(parents)
    joins = [w for w, p in parents.items() if p is not None and p not in graph.neighbours(w)]
    assert all(parents[worker] == root for worker in joins)
    for worker in parents:
        seen = []
        while worker is not None:
            assert worker not in seen
            seen.append(worker)
            worker = parents[worker]
        assert seen[-1] == root
    if not dead:
        assert not joins
