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
    if name not in SCHEDULES and not plugins.is_reference(name):
        raise ScheduleError(
            f"schedule {name!r}", f"one of {', '.join(SCHEDULES)}, or package.module:object"
        )
    maker = SCHEDULES.get(name) or plugins.load(name, ScheduleError)
    if not isinstance(maker, type):
        if options:
            raise ScheduleError(f"schedule {name!r} with options {options}", "no options")
        return as_schedule(maker)
    try:
        return as_schedule(maker(**options))
    except TypeError as error:
        raise ScheduleError(f"schedule {name!r} with options {options} ({error})") from error


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
