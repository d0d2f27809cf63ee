"""Local time never runs ahead of the step, nor back; the meter finds the achieved rate."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.worker import RateMeter, StepClock, UniformClock

from .common import examples


@examples(200)
@given(st.lists(st.tuples(st.floats(0, 10), st.sampled_from([0, 0, 1, 2, 5])), max_size=40))
def test_local_time_stays_within_the_running_step(happenings: list[tuple[float, int]]) -> None:
    clock, now_s, before = StepClock(), 0.0, 0.0
    clock.advance(0, now_s)
    for wait_s, done in happenings:
        now_s += wait_s
        assert before <= clock.time(now_s) <= clock.steps + 1
        if done:
            clock.advance(clock.steps + done, now_s)
        time = clock.time(now_s)
        assert max(before, clock.steps) <= time <= clock.steps + 1
        before = time


def test_a_clock_stands_still_until_the_first_step_and_beyond_the_running_one() -> None:
    clock = StepClock()
    clock.advance(0, 0.0)
    assert clock.time(100.0) == 0.0
    assert clock.when(0.5) == math.inf
    clock.advance(1, 2.0)
    assert clock.time(3.0) == 1.5
    assert clock.when(1.75) == 3.5
    assert clock.time(50.0) == 2.0
    assert clock.when(2.1) == math.inf


@examples(100)
@given(st.floats(0.1, 10), st.integers(1, 30), st.floats(0, 1))
def test_when_is_the_inverse_of_time(step_s: float, steps: int, share: float) -> None:
    clock = StepClock()
    for done in range(steps + 1):
        clock.advance(done, done * step_s)
    time = steps + share
    assert clock.time(clock.when(time)) == pytest.approx(time, abs=1e-9)
    uniform = UniformClock(step_s)
    assert uniform.time(uniform.when(time)) == pytest.approx(time)


def test_the_pace_follows_the_last_few_steps() -> None:
    clock, now_s = StepClock(), 0.0
    clock.advance(0, 0.0)
    for step in range(1, 40):
        now_s += 1.0 if step < 20 else 3.0
        clock.advance(step, now_s)
    assert clock.step_s == pytest.approx(3.0, rel=1e-4)


@pytest.mark.parametrize("achieved", [0.2, 0.5, 1.0, 1.5, 5.0])
def test_the_ratio_is_achieved_over_nominal(achieved: float) -> None:
    meter, rng, time = RateMeter(nominal=2.0), np.random.default_rng(1), 0.0
    assert meter.ratio(0.0) == 1.0
    ratios = []
    for _ in range(4000):
        time += rng.exponential(1 / (achieved * 2.0))
        ratios.append(meter.ratio(time))  # as seen just before: an average over time
        meter.count(1.0, time)
    seen = np.mean(ratios[400:])
    expected = min(2.0, (16 * achieved + 2) / 18)  # two at the nominal rate are taken as seen
    assert seen == pytest.approx(expected, rel=0.08)


def test_the_ratio_falls_when_nothing_comes_but_not_to_nothing() -> None:
    meter = RateMeter(nominal=1.0)
    ratios = [meter.ratio(time) for time in np.arange(0, 500, 5.0)]
    assert all(later <= sooner for sooner, later in pairwise(ratios))
    assert ratios[-1] == pytest.approx(2 / 18)
    meter.count(1.0, 500.0)
    assert meter.ratio(500.0) > ratios[-1]


def test_chunks_count_as_fractions() -> None:
    whole, parts = RateMeter(1.0), RateMeter(1.0)
    whole.count(1.0, 3.0)
    for _ in range(4):
        parts.count(0.25, 3.0)
    assert whole.ratio(4.0) == pytest.approx(parts.ratio(4.0))
