"""Slots in chunks and in the relative basis do what the plain equations of `System` say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decent.dynamics import Acid, Array, Dadao, Gossip, System
from decent.errors import ModelError
from decent.testing import systems
from decent.worker import Slots

from .common import examples

NUMBERS = st.floats(-10, 10, allow_subnormal=False)


class Plain:
    """The reference: the papers' slots, one clock and one system for each chunk."""

    def __init__(self, state: Array, system: System, chunk: int) -> None:
        self.state, self.system, self.chunk = state, system, chunk
        chunks = range(-(-state.shape[1] // chunk))
        self.times, self.systems = dict.fromkeys(chunks, 0.0), dict.fromkeys(chunks, system)

    def rows(self, chunk: int) -> Array:
        return self.state[:, chunk * self.chunk : (chunk + 1) * self.chunk]

    def drift(self, chunk: int, time: float) -> None:
        before = self.times[chunk]
        self.systems[chunk].drift(self.rows(chunk), max(0.0, time - before))
        self.times[chunk], self.systems[chunk] = max(time, before), self.system


@examples(150)
@given(st.data(), systems().filter(lambda system: bool(system.message.any())))
def test_any_interleaving_equals_the_plain_equations(data: st.DataObject, system: System) -> None:
    values, chunk = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 8))
    size = len(system.slots)
    plain = Plain(data.draw(arrays(float, (size, values), elements=NUMBERS)), system, chunk)
    slots = Slots(plain.state.copy(), system, chunk)
    scale, time = 1.0, 0.0
    for _ in range(data.draw(st.integers(1, 8))):
        time += data.draw(st.floats(0, 0.5))
        which = data.draw(st.integers(0, slots.chunks - 1))
        what = data.draw(st.sampled_from(["drift", "step", "snapshot", "add", "system"]))
        width = plain.rows(which).shape[1]
        scale = max(scale, *(np.abs(each).max() for each in (plain.state, slots.array)))
        near = {"rtol": 1e-10, "atol": 1e-11 * scale}
        if what == "drift":
            slots.drift(which, time)
            plain.drift(which, time)
        elif what == "step":
            gradient = data.draw(arrays(float, values, elements=NUMBERS))
            refresh(slots, plain, time)
            relative = slots.system.relative
            np.testing.assert_allclose(
                relative.probe @ slots.array, plain.system.gradient_point(plain.state), **near
            )
            slots.array[0] += relative.kick[0] * (gradient + relative.residual @ slots.array)
            plain.system.kick_by(plain.state, gradient)
        elif what == "snapshot":
            plain.drift(which, time)
            expected = plain.system.message @ plain.rows(which)
            np.testing.assert_allclose(slots.snapshot(which, time), expected, **near)
        elif what == "add":
            difference = data.draw(arrays(float, width, elements=NUMBERS))
            mix = data.draw(arrays(float, size, elements=st.floats(-2, 2)))
            plain.drift(which, time)
            squared = slots.add(which, time, difference, mix)
            assert squared == pytest.approx(difference @ difference)
            plain.rows(which)[:] += np.outer(mix, difference)
        else:
            plain.system = data.draw(same_slots(plain.system))
            slots.system = plain.system
    scale = max(scale, *(np.abs(each).max() for each in (plain.state, slots.array)))
    np.testing.assert_allclose(slots.plain(), plain.state, rtol=1e-10, atol=1e-11 * scale)


def refresh(slots: Slots, plain: Plain, time: float) -> None:
    slots.refresh(time)
    for chunk in range(slots.chunks):
        plain.drift(chunk, time)


def same_slots(system: System) -> st.SearchStrategy[System]:
    """Another system of as many slots, perhaps in another basis."""
    size = len(system.slots)
    return systems().filter(lambda each: len(each.slots) >= size).map(
        lambda each: System(
            system.slots, each.flow[:size, :size], each.probe[:size], each.residual[:size],
            each.kick[:size], system.message, each.mix[:size],
        )
    )  # fmt: skip


@pytest.mark.parametrize("method", [Acid(), Dadao(0.1, 10.0)])
@pytest.mark.parametrize("pace", [0.3, 1.7])
def test_another_pace_leaves_the_plain_state_alone(method: Acid | Dadao, pace: float) -> None:
    first, second = method.system(2.0, 1.0), method.system(2.0 / pace, 1.0 / pace)
    state = np.random.default_rng(0).normal(size=(len(first.slots), 10))
    slots = Slots(state.copy(), first, 4)
    slots.system = second
    np.testing.assert_allclose(slots.plain(), state, rtol=1e-12)  # nothing has drifted yet
    slots.drift(1, 0.0)
    np.testing.assert_allclose(slots.plain(), state, rtol=1e-9, atol=1e-9)
    slots.refresh(0.0)
    np.testing.assert_allclose(slots.plain(), state, rtol=1e-9, atol=1e-9)


def test_nothing_that_is_not_finite_is_mixed() -> None:
    slots = Slots(np.ones((1, 4)), Gossip().system(1.0, 1.0), 4)
    for bad in (np.nan, np.inf, 1e200):
        theirs = np.array([1.0, bad, 1.0, 1.0])
        with np.errstate(over="ignore"):
            assert slots.add(0, 0.0, theirs, np.array([0.5])) is None
    np.testing.assert_array_equal(slots.array, np.ones((1, 4)))


def test_every_change_is_made_in_the_guards_turn() -> None:
    inside = []
    turns = 0

    @contextmanager
    def one_turn() -> Iterator[None]:
        nonlocal turns
        assert not inside
        inside.append(1)
        turns += 1
        yield
        inside.pop()

    class Guard:
        def __enter__(self) -> None:
            self.turn = one_turn()
            self.turn.__enter__()

        def __exit__(self, *error: object) -> None:
            self.turn.__exit__(None, None, None)

    slots = Slots(np.ones((2, 7)), Acid().system(2.0, 1.0), 3, Guard())
    slots.refresh(1.0)
    assert turns == 3  # one a chunk: the optimizer never waits for a whole vector
    slots.snapshot(0, 2.0)
    slots.add(2, 2.0, np.zeros(1), np.array([0.5, 0.5]))
    assert turns == 5


def test_stale_names_the_chunks_that_would_move() -> None:
    slots = Slots(np.array([[1.0] * 6, [2.0] * 6]), Acid().system(2.0, 1.0), 2)
    slots.drift(1, 3.0)
    assert slots.stale(4.0, 2.0) == [0, 2]
    resting = Slots(np.array([[1.0] * 6, [1.0] * 6]), Acid().system(2.0, 1.0), 2)
    assert resting.stale(4.0, 2.0) == []


def test_a_state_of_another_shape_is_refused_in_words() -> None:
    system = Acid().system(2.0, 1.0)
    for shape in ((1, 5), (2, 0), (5,)):
        with pytest.raises(ModelError, match=r"expected \(2, d\) with d ≥ 1, for slots x, x̃"):
            Slots(np.zeros(shape), system, 4)


@examples(50)
@given(st.integers(1, 50), st.integers(1, 60))
def test_chunks_cover_every_value_once(values: int, chunk: int) -> None:
    slots = Slots(np.zeros((1, values)), replace(Gossip().system(1, 1)), chunk)
    covered = [i for c in range(slots.chunks) for i in range(values)[slots.span(c)]]
    assert covered == list(range(values))
