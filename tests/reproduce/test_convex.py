"""What experiments on convex functions share: slopes and costs of curves, and DADAO as designed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from decent.learning.ridge import Ridge
from decent.reproduce import convex
from decent.simulation.rounds import MSDA
from decent.topology import family


def exponential(rate: float, until: float) -> convex.Track:
    """e^(−rate·t) at t = 0, 1, 2, …, with three messages per gradient."""
    time = np.arange(0.0, until)
    return convex.Track(time, 3 * time, np.exp(-rate * time))


def test_a_slope_is_that_of_the_part_it_is_fitted_to() -> None:
    track = exponential(0.5, 100)
    assert track.slope() == pytest.approx(-0.5)
    assert track.slope("messages") == pytest.approx(-0.5 / 3)
    assert math.isnan(exponential(0.5, 10).slope())


def test_costs_are_read_off_between_points() -> None:
    track = exponential(0.5, 100)
    assert track.spent("gradients", 1e-6) == pytest.approx(math.log(1e6) / 0.5)
    assert track.spent("messages", 1e-6) == pytest.approx(3 * math.log(1e6) / 0.5)
    assert math.isnan(exponential(0.5, 10).spent("messages", 1e-6))


def test_a_target_counts_once_it_is_kept() -> None:
    time = np.arange(5.0)
    track = convex.Track(time, time, np.array([1.0, 0.1, 0.5, 0.1, 0.01]))
    assert 2 < track.spent("gradients", 0.2) < 3


@pytest.mark.parametrize("name", ["ring", "star", "barbell"])
def test_designed_rates_have_a_product_of_one_half(name: str) -> None:
    graph = family(name, 8, rate=0.3)
    at = convex.designed(graph)
    assert at.chi_1 * at.chi_2 == pytest.approx(0.5)
    assert math.fsum(at.rates) == pytest.approx(convex.needed(graph))


def test_a_star_needs_as_many_exchanges_as_it_has_edges() -> None:
    assert convex.needed(family("star", 20)) == pytest.approx(19)


def test_dadao_keeps_its_theorem_and_both_kinds_cost_what_they_should() -> None:
    objective, ring = Ridge().objective(8), family("ring", 8)
    mine = convex.dadao(objective, ring, target=1e-8, limit=400, replicas=4)
    assert mine.slope(part=(1e-3, 1e-8)) < -convex.theorem(objective.mu, objective.L)
    rate = mine.messages[-1] / mine.gradients[-1]
    assert rate == pytest.approx(convex.needed(ring), rel=0.05)
    other = convex.rounds(objective, ring, MSDA(), target=1e-8, limit=100)
    assert other.error[-1] < 1e-8
    assert other.spent("gradients") < mine.spent("gradients")


def test_an_exponent() -> None:
    assert convex.exponent([1.0, 2.0, 4.0], [3.0, 12.0, 48.0]) == pytest.approx(2)
