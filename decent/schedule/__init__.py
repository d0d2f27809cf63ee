"""WHEN workers talk: seeded streams of contacts. numpy only."""

from __future__ import annotations

from typing import Any

from decent import plugins
from decent.errors import ScheduleError
from decent.schedule.base import (
    Agenda,
    Contact,
    Moment,
    Schedule,
    View,
    as_schedule,
)
from decent.schedule.one_peer import OnePeer
from decent.schedule.periodic import Periodic
from decent.schedule.poisson import Poisson
from decent.schedule.streams import stream
from decent.schedule.window import Never, Window

SCHEDULES: dict[str, type] = {
    "poisson": Poisson,
    "periodic": Periodic,
    "one_peer": OnePeer,
    "never": Never,
    "window": Window,
}


def get(name: Any, **options: Any) -> Schedule:
    """A schedule by name, by `package.module:object`, or as it is."""
    if not isinstance(name, str):
        return as_schedule(name)

    def ready(found: Any) -> bool:
        return isinstance(found, Schedule) or callable(found)

    return as_schedule(plugins.build("schedule", name, SCHEDULES, options, ScheduleError, ready))


__all__ = [
    "SCHEDULES",
    "Agenda",
    "Contact",
    "Moment",
    "Never",
    "OnePeer",
    "Periodic",
    "Poisson",
    "Schedule",
    "View",
    "Window",
    "as_schedule",
    "get",
    "stream",
]
