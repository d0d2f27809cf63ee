"""The schedule of faults is a function of the seed, and spares what it says that it spares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decent.chaos import faults as f
from decent.chaos.faults import KINDS, Fault, Kind, check_kinds, plan
from decent.errors import ConfigError
from decent.testing import graphs
from decent.topology import Topology, family
from decent.topology.edges import connected

SEEDS = st.integers(0, 10**6)
SOME = st.lists(st.sampled_from(KINDS), min_size=1, unique=True)
RATES = st.floats(0.5, 10)
DEAD_S = 15.0


def living(topology: Topology, faults: Sequence[Fault]) -> list[int]:
    dead = {fault.worker for fault in faults if fault.kind == "kill"}
    return [worker for worker in range(topology.n) if worker not in dead]


@settings(max_examples=50)
@given(SEEDS, SOME, RATES, graphs(8))
def test_a_seed_settles_all(seed: int, kinds: list[Kind], rate: float, topology: Topology) -> None:
    faults = plan(seed, kinds, rate, 20.0, topology)
    assert faults == plan(seed, kinds, rate, 20.0, topology)
    assert {fault.kind for fault in faults} <= {*kinds}
    times = [fault.at_s for fault in faults]
    assert times == sorted(times)
    assert all(0 <= at_s <= 20.0 + 1 / rate for at_s in times)


@settings(max_examples=50)
@given(SEEDS, RATES, graphs(8))
def test_those_left_can_merge(seed: int, rate: float, topology: Topology) -> None:
    """Two thirds at least, and connected; the dead are left alone."""
    faults = plan(seed, KINDS, rate, 30.0, topology)
    left = living(topology, faults)
    assert 3 * len(left) >= 2 * topology.n
    number = {worker: k for k, worker in enumerate(left)}
    between = [(number[i], number[j]) for i, j in topology.edges if {i, j} <= number.keys()]
    assert connected(len(left), between)
    dead: set[int | None] = set()
    for fault in faults:
        assert not dead & {fault.worker, *(fault.edge or ())}
        dead |= {fault.worker} if fault.kind == "kill" else set()


def silences(edge: tuple[int, int], faults: Sequence[Fault]) -> list[float]:
    """Seconds of silence on end, gaps too short for a word counted in."""
    lasts, start_s, end_s = list[float](), math.nan, -math.inf
    for fault in faults:
        if fault.kind in f.SILENCES and (fault.edge == edge or fault.worker in edge):
            if fault.at_s > end_s + f.BREATH_S:
                start_s = fault.at_s
            end_s = max(end_s, fault.at_s + fault.span_s)
            lasts.append(end_s - start_s)
    return lasts


@settings(max_examples=50)
@given(SEEDS, st.floats(1, 30), st.floats(2, 20))
def test_nobody_seems_dead_who_is_not(seed: int, rate: float, dead_s: float) -> None:
    topology = family("ring", 6)
    faults = plan(seed, KINDS, rate, 20.0, topology, dead_s)
    assert all(fault.span_s <= max(0.2, f.LONGEST * dead_s) + 1e-4 for fault in faults)
    for edge in (each for each in topology.edges if {*each} <= {*living(topology, faults)}):
        assert max(silences(edge, faults), default=0) <= f.SILENCE * dead_s + 1e-6


def test_as_many_as_asked_for_and_of_all_kinds() -> None:
    faults = plan(0, KINDS, 5.0, 100.0, family("random_regular", 6, degree=3), DEAD_S)
    assert len(faults) == 500
    assert {fault.kind for fault in faults} == {*KINDS}
    assert sum(fault.kind == "kill" for fault in faults) == 2


def test_kills_alone_are_few() -> None:
    assert len(plan(1, ["kill"], 5.0, 10.0, family("complete", 9))) == 3
    assert plan(1, ["kill"], 5.0, 10.0, family("complete", 2)) == []


@pytest.mark.parametrize(
    ("given", "found"),
    [("kill,pause", ("kill", "pause")), (" slow , kill,slow", ("kill", "slow"))],
)
def test_kinds_are_told_apart(given: str, found: Any) -> None:
    assert check_kinds(given) == found


@pytest.mark.parametrize("given", ["", "kil", "kill,pauze", ","])
def test_unknown_kinds_are_refused(given: str) -> None:
    with pytest.raises(ConfigError, match="partition"):
        check_kinds(given)
