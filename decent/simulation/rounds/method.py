"""What a round-based method is: a generator whose local variables are the state of the algorithm.

In a round every worker takes one gradient and then whatever communication is due, unless the
method says otherwise. Costs are cumulative, in the units of `problem`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from decent.errors import ConfigError
from decent.simulation.rounds.problem import Problem


class Round(NamedTuple):
    """Where the workers are after a round, and what it has cost since the start."""

    points: Tensor  # [n, d]; may change or be the same tensor in the next round
    gradients: float  # per worker
    messages: float  # in total


@runtime_checkable
class Method(Protocol):
    """A way to minimise Σ_i f_i; its options are its fields."""

    @property
    def name(self) -> str:
        """What reports and configurations call it."""

    def rounds(self, problem: Problem) -> Iterator[Round]:
        """The start, at no cost, and then each round, without end."""


def average(points: Tensor) -> Tensor:
    """The mean of the rows in each row, [n, d]."""
    return points.mean(dim=0, keepdim=True).expand_as(points)


def check_period(period: int) -> None:
    if period < 1:
        raise ConfigError(f"period = {period}", "1 local step or more between averages")
