"""When workers talk: each schedule's counts and order, a user's own, and broken ones."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent import schedule
from decent.dynamics import Gossip
from decent.errors import ScheduleError
from decent.schedule import (
    Agenda,
    Contact,
    Never,
    OnePeer,
    Periodic,
    Poisson,
    View,
    Window,
    as_schedule,
    stream,
)
from decent.testing import Limits, cluster, contacts, cut, graphs, schedules
from decent.topology import Topology, family

UNEVEN = Topology.from_edges(4, [(0, 1), (0, 2), (0, 3)], [0.5, 2.0, 8.0])


def everyone(rule: Any, graph: Topology, until: float, **options: Any) -> list[list[Any]]:
    return [contacts(rule, graph, until, worker=me, **options) for me in range(graph.n)]


# Poisson


def test_poisson_counts_are_those_of_the_rates() -> None:
    until = 2000.0
    edges: Counter[tuple[int, int]] = Counter()
    for me, made in enumerate(everyone(Poisson(), UNEVEN, until)):
        edges.update((min(me, peer), max(me, peer)) for _, peer in made)
    for edge, rate in zip(UNEVEN.edges, UNEVEN.rates, strict=True):
        assert abs(edges[edge] - rate * until) < 4 * math.sqrt(rate * until)
    total = sum(UNEVEN.rates) * until
    assert abs(edges.total() - total) < 4 * math.sqrt(total)


def test_poisson_may_redistribute_what_is_due_on_suspended_edges() -> None:
    until, rates = 2000.0, {1: 0.25, 2: 1.0, 3: 4.0}
    agenda = Agenda(Poisson(redistribute=True), View.of(UNEVEN, 0, 0))
    made = Counter(agenda.due(until, None, {3}))
    total = sum(rates.values()) * until
    assert abs(made.total() - total) < 4 * math.sqrt(total)
    for peer in (1, 2):
        share = rates[peer] / 1.25
        assert abs(made[peer] - share * total) < 4 * math.sqrt(share * total)
    assert made[3] == 0


def test_poisson_redistributes_nothing_where_nothing_or_all_is_suspended() -> None:
    plain = contacts(Poisson(), UNEVEN, 200.0)
    assert contacts(Poisson(redistribute=True), UNEVEN, 200.0) == plain
    for suspended, rule in (({1, 2, 3}, Poisson(True)), ({3}, Poisson())):
        agenda = Agenda(rule, View.of(UNEVEN, 0, 0))
        assert list(agenda.due(200.0, None, suspended)) == [peer for _, peer in plain]


def test_a_worker_keeps_its_rate_while_an_edge_is_cut() -> None:
    graph = family("complete", 4, rate=2.0)
    skipped, completed = [], []
    for rule in (Poisson(), Poisson(redistribute=True)):
        c = cluster(
            graph, Gossip(), rule, 4, merge=False, faults=[cut(0, 1, 5.0)],
            limits=Limits(chunk=4, silent_s=2.0, dead_s=1e9),
        )  # fmt: skip
        c.run(200.0)
        stats = c.workers[0].context.stats
        skipped.append(stats.skipped["peer silent"])
        completed.append(stats.completed)
    assert skipped[0] > 100
    assert skipped[1] == 0
    assert completed[1] > 1.3 * completed[0]


def test_poisson_gaps_have_no_memory() -> None:
    times = [time for time, _ in contacts(Poisson(), UNEVEN, 2000.0)]
    gaps = np.diff(times) * 5.25
    assert abs(gaps.mean() - 1) < 4 / math.sqrt(len(gaps))
    assert abs(np.mean(gaps > 1) - math.exp(-1)) < 4 * 0.5 / math.sqrt(len(gaps))


def test_each_end_starts_half_of_an_edges_exchanges() -> None:
    made = everyone(Poisson(), family("line", 2, rate=3.0), 2000.0)
    for each in made:
        assert abs(len(each) - 3000) < 4 * math.sqrt(3000)


# Periodic


def test_periodic_counts_are_exact() -> None:
    until = 100.0
    made = contacts(Periodic(), UNEVEN, until)
    for peer, rate in UNEVEN.neighbours(0).items():
        times = [time for time, each in made if each == peer]
        np.testing.assert_allclose(np.diff(times), 2 / rate, rtol=1e-9)
        assert len(times) in (int(until * rate / 2), math.ceil(until * rate / 2))
    phases = {me: contacts(Periodic(), family("ring", 8), 9.0, worker=me)[0][0] for me in range(8)}
    assert len(set(phases.values())) == 8


# OnePeer


def test_one_peer_on_a_hypercube_is_exact_after_log2_n_rounds() -> None:
    graph = family("hypercube", 16)
    c = cluster(graph, Gossip(), OnePeer(every=1.0), 5, merge=False)
    mean = c.total() / 16
    for rounds in range(1, 5):
        c.run(rounds + 0.5)
        states = np.array([worker.slots.array for worker in c.workers.values()])
        assert len(np.unique(states.round(9), axis=0)) == 16 / 2**rounds
    np.testing.assert_allclose(states, np.broadcast_to(mean, states.shape), atol=1e-14)
    assert sum(worker.context.stats.completed for worker in c.workers.values()) == 4 * 8


def test_one_peer_on_an_even_ring_alternates_perfect_matchings() -> None:
    graph = family("ring", 10)
    rounds: dict[float, set[tuple[int, int]]] = {}
    for me, made in enumerate(everyone(OnePeer(every=1.0), graph, 6.0)):
        for time, peer in made:
            assert me < peer  # the lower end starts
            rounds.setdefault(time, set()).add((me, peer))
    assert sorted(rounds) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    for matching in rounds.values():
        assert sorted(itertools.chain(*matching)) == list(range(10))
    assert rounds[1.0] | rounds[2.0] == set(graph.edges)
    assert rounds[1.0] == rounds[3.0] != rounds[2.0]


def test_one_peer_keeps_the_topologys_rate_by_default() -> None:
    graph = family("hypercube", 16).with_models_per_worker(0.5)
    made = sum(map(len, everyone(OnePeer(), graph, 100.0)))
    assert made == 100 * 0.5 * 16 / 2


# Window, Never


@pytest.mark.parametrize("base", [Poisson(), Periodic()])
def test_a_window_is_silent_outside(base: Any) -> None:
    made = everyone(Window(0.25, 0.5, base=base), family("ring", 4, rate=2.0), 200.0, steps=200)
    times = [time for each in made for time, _ in each]
    assert 50 <= min(times) < 55
    assert 95 < max(times) < 100


@pytest.mark.parametrize(("keep", "expected"), [(True, 1600), (False, 160)])
def test_a_window_keeps_the_budget_if_asked(keep: bool, expected: int) -> None:
    """4 edges at rate 2 over 200 units, in a tenth of the run."""
    rule = Window(0.8, 0.9, keep_budget=keep)
    made = sum(map(len, everyone(rule, family("ring", 4, rate=2.0), 200.0, steps=200)))
    assert abs(made - expected) < 4 * math.sqrt(expected)


def test_a_window_without_a_planned_length_says_so() -> None:
    with pytest.raises(ScheduleError, match=r"number of steps is not known.*Pass steps="):
        contacts(Window(0.5), UNEVEN, 10.0)


@pytest.mark.parametrize(
    ("start", "stop"), [(0.5, 0.5), (0.7, 0.2), (-0.1, 1), (0, 1.1), (0, math.nan)]
)
def test_an_impossible_window_is_refused(start: float, stop: float) -> None:
    with pytest.raises(ScheduleError, match="0 ≤ start < stop ≤ 1"):
        Window(start, stop)


def test_never() -> None:
    assert contacts(Never(), UNEVEN, 1e9) == []
    assert Agenda(Never(), View(0, 2, {1: 1.0}, stream(0))).next_time == math.inf


# all of them


@settings(deadline=None, max_examples=60, derandomize=True)
@given(schedules(), graphs(6), st.integers(0, 99))
def test_every_schedule_keeps_its_contract(rule: Any, graph: Topology, seed: int) -> None:
    graph = graph.with_rates([min(rate, 5.0) for rate in graph.rates])
    for me in range(graph.n):
        made = contacts(rule, graph, 20.0, worker=me, steps=20, seed=seed)
        times = [time for time, _ in made]
        assert times == sorted(times)
        assert {peer for _, peer in made} <= set(graph.neighbours(me))
        assert made == contacts(rule, graph, 20.0, worker=me, steps=20, seed=seed)


def test_another_seed_makes_other_contacts() -> None:
    for rule in (Poisson(), Periodic()):
        assert contacts(rule, UNEVEN, 20.0, seed=1) != contacts(rule, UNEVEN, 20.0, seed=2)


def test_streams_do_not_depend_on_order() -> None:
    names = [(0, "edge", 1, 2), (0, "edge", 2, 1), (0, "edge", 12), (1, "edge", 1, 2), (0,)]
    forward = [stream(*name).random(4).tolist() for name in names]
    backward = [stream(*name).random(4).tolist() for name in reversed(names)]
    assert forward == backward[::-1]
    assert len({tuple(each) for each in forward}) == len(names)


def test_peers_are_drawn_in_proportion_to_rates() -> None:
    view = View(0, 4, {1: 1.0, 2: 0.0, 3: 3.0}, stream(0))
    drawn = Counter(view.draw_peer() for _ in range(4000))
    assert drawn[2] == 0
    assert abs(drawn[3] - 3000) < 4 * math.sqrt(4000 * 0.75 * 0.25)
    assert view.scaled(2.0).rates == {1: 2.0, 2: 0.0, 3: 6.0}


# a user's own


def later_and_later(view: View) -> Iterator[Contact]:
    """A contact with everyone after steps 1, 2, 4, 8, …, then none in the last tenth."""
    time = 1.0
    while True:
        yield time, None
        if view.progress < 0.9:
            for peer in view.rates:
                yield time, peer
        time *= 2


def test_a_users_generator_runs_in_an_agenda_and_in_a_cluster() -> None:
    made = contacts(later_and_later, family("ring", 4), 100.0, steps=40)
    assert made == [(t, peer) for t in (1, 2, 4, 8, 16, 32) for peer in (1, 3)]
    c = cluster(family("ring", 4), Gossip(), later_and_later, steps=40, learner=lambda worker: None)
    c.run(100.0)
    started = [worker.context.stats.started for worker in c.workers.values()]
    skipped = [worker.context.stats.skipped.total() for worker in c.workers.values()]
    assert [a + b for a, b in zip(started, skipped, strict=True)] >= [12] * 4
    assert sum(started) >= 24


# broken ones


def never_returns_pairs(view: View) -> None:
    """Someone forgot to yield."""


@pytest.mark.parametrize(
    ("yielded", "words"),
    [
        ([(math.nan, 1)], "yielded time nan"),
        ([(2.0, 1), (1.0, 1)], "yielded time 1.0 after 2.0: expected local times that never decr"),
        ([(1.0, 7)], r"yielded peer 7 on worker 0: expected one of its neighbours \[1, 2, 3\], or"),
        ([(1.0, 0)], "yielded peer 0 on worker 0"),
        ([(1.0, [1])], r"yielded peer \[1\]"),
        ([(1.0, "1")], "yielded peer '1'"),
        ([1.0], r"yielded 1.0: expected a pair \(time, peer or None\)"),
        ([(1.0,)], "expected a pair"),
        ([(1.0, 1, 1)], "expected a pair"),
        ([None], "yielded None: expected a pair"),
        ([{"time": 1.0}], "expected a pair"),
        ([("soon", 1)], r"yielded \('soon', 1\)"),
        (itertools.repeat((1.0, None)), "yielded time 1.0 100000 times: expected times that move"),
        (itertools.repeat((1.0, 2)), "yielded time 1.0 100000 times"),
    ],
)
def test_what_breaks_the_contract_is_said_in_words(yielded: Any, words: str) -> None:
    def broken(view: View) -> Iterator[Contact]:
        yield from yielded

    with pytest.raises(
        ScheduleError, match=f"schedule broken {words}" if "yielded" in words else words
    ):
        contacts(broken, UNEVEN, 10.0)


def test_a_function_that_yields_nothing_at_all_is_said_in_words() -> None:
    with pytest.raises(ScheduleError, match=r"never_returns_pairs returned None.*Yield each"):
        contacts(never_returns_pairs, UNEVEN, 10.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: OnePeer(every=0.0), "every = 0.0: expected a positive number"),
        (lambda: OnePeer(every=math.nan), "every = nan"),
        (lambda: as_schedule(7), r"schedule 7: expected an object with contacts\(view\)"),
        (lambda: schedule.get("sometimes"), "one of poisson, periodic"),
        (lambda: schedule.get("one_peer", evry=2), "evry"),
        (lambda: schedule.get(f"{__name__}:later_and_later", a=1), "no options"),
    ],
)
def test_what_is_no_schedule_is_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ScheduleError, match=words):
        make()


def test_schedules_by_name() -> None:
    assert schedule.get("one_peer", every=2.0) == OnePeer(2.0)
    assert schedule.get(Poisson) == Poisson()
    mine = schedule.get(f"{__name__}:later_and_later")
    assert contacts(mine, UNEVEN, 3.0, steps=10)[0] == (1.0, 1)
