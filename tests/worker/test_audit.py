"""The ledgers of a cluster balance, whatever befalls it, and what was settled by rule is named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Acid, Dadao, Dynamics, System
from decent.schedule import Poisson, stream
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
)
from decent.topology import Link, family
from decent.worker import Ledger, Worker
from decent.worker.audit import Report, audit

from .common import Scattered, examples, talking
from .ledgers import DYNAMICS, LINE, Ledgers, as_written, learner
from .test_conservation import TALK_S, Case, cases, change_constants, quiet


def run(case: Case, dynamics: Dynamics, **options: Any) -> tuple[Cluster, Ledgers]:
    ledgers: Ledgers = {}
    c = cluster(
        case.topology, dynamics, Poisson(), case.values, network=case.network, limits=case.limits,
        faults=case.faults, seed=case.seed, ledgers=ledgers, **options,
    )  # fmt: skip
    return c, ledgers


def checked(ledgers: Ledgers) -> Report:
    report = audit(as_written(ledgers))
    assert report.balanced, report.culprits[:3]
    return report


@examples(40)
@given(st.data(), talking(), st.floats(0, 2 * TALK_S), st.booleans())
def test_any_system_balances_wherever_it_is_stopped(
    data: st.DataObject, system: System, stop_s: float, near: bool
) -> None:
    """Delays, losses, duplicates and pauses; constants that change and differ between workers."""
    case = data.draw(cases(system))
    learns = learner(case.seed)
    c, ledgers = run(case, Scattered(system), steps=8, merge=False, learner=learns, near=near)
    c.at(TALK_S / 2, lambda: change_constants(c, system))
    c.at(TALK_S, lambda: quiet(c))
    c.run(stop_s)
    c.close()
    report = checked(ledgers)
    assert report.closed == list(c.workers)


@examples(30)
@given(st.data(), st.sampled_from(DYNAMICS), st.booleans(), st.booleans())
def test_runs_balance_whoever_dies(
    data: st.DataObject, dynamics: Dynamics, follow: bool, near: bool
) -> None:
    """To the merge; peers may be declared dead that are not."""
    graph = data.draw(graphs(5))
    graph = graph.with_rates([min(rate, 2.0) for rate in graph.rates])
    seed = data.draw(st.integers(0, 1000))
    network = Network(graph, Link(data.draw(st.sampled_from([0.0, 0.3, 2.0]))), seed, jitter=0.5)
    limits = Limits(chunk=2, window=2, silent_s=1.5, dead_s=4.0, start_s=20.0)
    faults = data.draw(fault_scripts(graph.n, 20.0, deaths=True))
    case = Case(graph, network, limits, faults, 5, seed)
    c, ledgers = run(case, dynamics, steps=20, learner=learner(seed), follow=follow, near=near)
    c.run(200.0)
    c.close()
    report = checked(ledgers)
    assert report.closed == c.alive
    assert report.unclosed == sorted(c.down)


@pytest.mark.parametrize(
    ("dynamics", "dtype"), [*zip(DYNAMICS, ["f4", "f4", "f8"], strict=True), (Acid(), "f8")]
)
def test_a_long_run_balances_to_rounding(dynamics: Dynamics, dtype: str) -> None:
    """Many balances, and vectors long enough for rows of signs."""
    ledgers: Ledgers = {}
    graph = family("ring", 4, rate=1.5)
    start = stream(0, "start").normal(size=(4, 1500)).astype(dtype)
    c = cluster(
        graph, dynamics, Poisson(), initial=start, steps=230, learner=learner(0), ledgers=ledgers,
        limits=Limits(chunk=1024), network=Network(graph, Link(0.05)), paces=[Pace(1.0, 0.3)] * 4,
    )  # fmt: skip
    c.run(1000.0)
    assert c.finished()
    report = checked(ledgers)
    assert report.closed == [0, 1, 2, 3]
    assert report.steps == 4 * 230
    assert sum(each.context.stats.completed for each in c.workers.values()) == sum(
        edge.exchanges for edge in report.edges
    )
    assert all(edge.off == 0 < edge.most for edge in report.edges)
    assert not report.settled
    balances = [line for line in ledgers[0] if line["event"] == "balance"]
    assert len(balances) == 3
    expected = {"gossip": ["x"], "a2cid2": ["0.5 x + 0.5 x̃"], "dadao": ["0.333 z + 0.667 z̃"]}
    assert report.combinations[-1:] == expected[dynamics.name]
    assert report.off < report.bound


def test_more_is_conserved_while_the_constants_stay() -> None:
    """DADAO's ηx̃ + η̃x changes with the rates that are followed; its dual does not."""
    ledgers: Ledgers = {}
    c = cluster(
        LINE, Dadao(1.0, 20.0), Poisson(), steps=30, learner=learner(0), ledgers=ledgers,
        follow=False,
    )  # fmt: skip
    c.run(500.0)
    assert len(checked(ledgers).combinations) == 2


# what is settled by rule

QUICK = Limits(chunk=2, window=2, dead_s=5.0, silent_s=2.0)


def slow_links() -> Network:
    return Network(LINE, Link(0.4), jitter=0.3)


def test_what_was_open_with_a_dead_peer_is_named_and_left_out() -> None:
    ledgers: Ledgers = {}
    c = cluster(
        LINE, Dadao(1.0, 20.0), Poisson(), 8, steps=60, learner=learner(1), ledgers=ledgers,
        limits=QUICK, network=slow_links(), faults=[kill(2, 20.2)], seed=4,
    )  # fmt: skip
    c.run(200.0)
    assert c.finished()
    report = checked(ledgers)
    assert (report.closed, report.unclosed) == ([0, 1], [2])
    assert {(each.exchange.edge, each.why) for each in report.settled} == {
        ((1, 2), "worker 2 has not closed its books")
    }


def test_what_was_given_up_in_flight_is_named_and_left_out() -> None:
    """The answerer has mixed it, its answer is lost, and both live to the end."""
    reasons = set()
    for at_s in np.arange(20.0, 21.5, 0.2):
        ledgers: Ledgers = {}
        c = cluster(
            LINE, Dadao(1.0, 20.0), Poisson(), 8, steps=40, learner=learner(1), ledgers=ledgers,
            limits=QUICK, network=slow_links(), merge=False, seed=4, faults=[cut(1, 2, at_s)],
        )  # fmt: skip
        c.run(40.0)
        c.close()
        settled = checked(ledgers).settled
        assert all(each.moved > 0 for each in settled)
        reasons |= {each.why for each in settled if each.exchange.edge == (1, 2)}
    assert reasons
    assert all(re.match(r"given up in flight by worker \d: the peer is dead", r) for r in reasons)


def test_what_was_in_flight_at_the_end_is_named_and_left_out() -> None:
    ends = set()
    for end_s in np.arange(20.0, 24.0, 0.25):
        ledgers: Ledgers = {}
        c = cluster(
            LINE, Acid(), Poisson(), 8, steps=60, learner=learner(1), ledgers=ledgers,
            limits=QUICK, network=slow_links(),
        )  # fmt: skip
        c.run(float(end_s))
        c.close()
        ends |= {each.why.partition(": ")[2] for each in checked(ledgers).settled}
    assert ends == {"the end"}


@examples(20)
@given(st.data())
def test_who_restarts_begins_new_books(data: st.DataObject) -> None:
    ledgers: Ledgers = {}
    c = cluster(
        LINE, Acid(), Poisson(), 6, steps=30, learner=learner(1), ledgers=ledgers,
        limits=replace(QUICK, dead_s=1e9), network=slow_links(), merge=False,
        faults=data.draw(fault_scripts(3, 15.0, restarts=True)),
    )  # fmt: skip
    c.run(60.0)
    c.close()
    report = checked(ledgers)
    assert report.closed == [0, 1, 2]


def test_a_ledger_that_breaks_off_is_one_of_a_dead_worker() -> None:
    ledgers: Ledgers = {}
    c = cluster(LINE, Acid(), Poisson(), 8, steps=150, learner=learner(1), ledgers=ledgers)
    c.run(300.0)
    lines = as_written(ledgers)
    for length in (0, 1, len(lines[1]) // 2, len(lines[1]) - 1):
        report = audit({**lines, 1: lines[1][:length]})
        assert report.balanced, report.culprits
        assert report.unclosed == [1]
    report = audit({me: lines[me] for me in (0, 2)})  # not even a folder
    assert report.balanced
    assert len(report.settled) > 10
    holes = [line for line in lines[1] if line["event"] != "exchange"]
    assert not audit({**lines, 1: holes}).balanced


def test_workers_that_keep_account_of_some_chunks_balance() -> None:
    lines: Ledgers = {0: [], 1: [], 2: []}
    workers = [
        Worker(
            me, LINE, Acid(), Poisson(), Acid().initial(np.full(40, float(me))), steps=150,
            limits=Limits(chunk=4), ledger=Ledger(lines[me].append, 0, {2: 3, 7: 4}),
        )
        for me in range(3)
    ]  # fmt: skip
    c = Cluster(workers, Network(LINE), learner=learner(3)).run(400.0)
    assert c.finished()
    report = checked(lines)
    assert report.edges[0].chunks % 10 == 0
    lines[1] = [
        {**line, "moved": [[2 * d for d in each] for each in line["moved"]]}
        if line["event"] == "exchange" else line
        for line in lines[1]
    ]  # fmt: skip
    assert not audit(lines).balanced
