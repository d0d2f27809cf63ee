"""Local time, and the rate of exchanges really achieved.

The unit of local time is one local gradient step. Between two steps it advances with the wall
clock, at the measured pace, but never beyond the running step: a worker that pauses (to evaluate,
say) stands still, and contacts per step are what the topology asks for at any speed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Turns seconds (any monotonic origin) into local time and back."""

    steps: int

    def advance(self, steps: int, now_s: float) -> None:
        """`steps` steps are done in all, the last of them by `now_s`."""

    def time(self, now_s: float) -> float:
        """Local time at `now_s`."""
        ...

    def when(self, time: float) -> float:
        """Seconds at which local `time` comes; inf if that waits for a step."""
        ...


@dataclass
class StepClock:
    """Local time of a worker that reports its steps."""

    steps: int = 0
    step_s: float | None = None
    _since_s: float | None = None

    def advance(self, steps: int, now_s: float) -> None:
        done = steps - self.steps
        if done <= 0:
            self._since_s = now_s if self._since_s is None else self._since_s
            return
        if self._since_s is not None:
            measured = (now_s - self._since_s) / done
            weight = 0.5**done  # an average over the last few steps
            self.step_s = (
                measured if self.step_s is None else weight * self.step_s + (1 - weight) * measured
            )
        self.steps, self._since_s = steps, now_s

    def time(self, now_s: float) -> float:
        if not self.step_s or self._since_s is None:
            return float(self.steps)
        return self.steps + min(1.0, max(0.0, (now_s - self._since_s) / self.step_s))

    def when(self, time: float) -> float:
        if not self.step_s or self._since_s is None or time > self.steps + 1:
            return math.inf
        return self._since_s + (time - self.steps) * self.step_s


@dataclass
class UniformClock:
    """Local time that runs on its own, `unit_s` seconds to the expected step: the papers' time."""

    unit_s: float = 1.0
    steps: int = 0

    def advance(self, steps: int, now_s: float) -> None:
        self.steps = steps

    def time(self, now_s: float) -> float:
        return now_s / self.unit_s

    def when(self, time: float) -> float:
        return time * self.unit_s


@dataclass
class RateMeter:
    """Achieved over nominal exchanges per unit of time, averaged over the last `memory` of them.

    `prior` exchanges at the nominal rate are taken as seen: the ratio starts at 1, is never 0.
    """

    nominal: float
    memory: float = 16.0
    prior: float = 2.0
    ceiling: float = 2.0
    _time: float = 0.0
    _seen: float = 0.0
    _expected: float = 0.0

    def start(self, time: float) -> None:
        """Nothing was expected before local `time`."""
        self._time = time

    def count(self, amount: float, time: float) -> None:
        """`amount` of an exchange (a chunk is a fraction) was completed at local `time`."""
        self._fade(time)
        self._seen += amount

    def ratio(self, time: float) -> float:
        self._fade(time)
        return min(self.ceiling, (self._seen + self.prior) / (self._expected + self.prior))

    def _fade(self, time: float) -> None:
        due = self.nominal * max(0.0, time - self._time)
        keep = math.exp(-due / self.memory)
        self._seen *= keep
        self._expected = keep * self._expected + self.memory * (1 - keep)
        self._time = max(self._time, time)
