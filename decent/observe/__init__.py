"""What a run tells: its summary, the tables made of it, and the view while it goes on.

Nothing here knows how a run is made: plain dictionaries come in, from the launcher or the
simulation, and dictionaries or renderables go out.
"""

from decent.observe.events import EventView
from decent.observe.experts import clusters, modules
from decent.observe.live import LiveView, PlainView, busy, telling, view
from decent.observe.progress import describe, totals
from decent.observe.summary import summarise
from decent.observe.tables import faults, results, tasks
from decent.observe.topology import as_dict, picture
from decent.observe.training import calibration, losses, training

__all__ = [
    "EventView",
    "LiveView",
    "PlainView",
    "as_dict",
    "busy",
    "calibration",
    "clusters",
    "describe",
    "faults",
    "losses",
    "modules",
    "picture",
    "results",
    "summarise",
    "tasks",
    "telling",
    "totals",
    "training",
    "view",
]
