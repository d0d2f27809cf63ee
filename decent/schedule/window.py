"""Never, and a window of the run outside which nobody talks.

"A Single Merging Suffices" (Zhu et al., 2025) spends a communication budget in one window of the
run and finds it worth more the later it is spent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from decent import schedule
from decent.errors import ScheduleError
from decent.schedule.base import Contact, Schedule, View


@dataclass(frozen=True)
class Never:
    """Isolated workers: no contact at all before the merge."""

    def contacts(self, view: View) -> Iterator[Contact]:
        return iter(())


@dataclass(frozen=True)
class Window:
    """`base` (a schedule, or its name) between the shares `start` and `stop` of the run.

    With `keep_budget` the rates inside are raised so that the whole run's budget is spent there.
    """

    start: float = 0.0
    stop: float = 1.0
    keep_budget: bool = True
    base: Schedule | str = "poisson"

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise ScheduleError(
                f"window from {self.start} to {self.stop}", "0 ≤ start < stop ≤ 1 (shares of a run)"
            )

    def contacts(self, view: View) -> Iterator[Contact]:
        base = schedule.get(self.base)
        factor = 1 / (self.stop - self.start) if self.keep_budget else 1.0
        for time, peer in base.contacts(view.scaled(factor)):
            yield time, None  # look again when the time has come: progress is known only then
            if self.start <= view.progress < self.stop:
                yield time, peer
