"""decent: train one model on machines that are not one cluster.

Names are loaded when first used, so that `import decent` needs neither torch nor zmq.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Gossip": "decent.runtime",
    "Config": "decent.config",
    "Topology": "decent.topology",
    "View": "decent.schedule",
    "DecentError": "decent.errors",
}

if TYPE_CHECKING:
    from decent.config import Config as Config
    from decent.errors import DecentError as DecentError
    from decent.runtime import Gossip as Gossip
    from decent.schedule import View as View
    from decent.topology import Topology as Topology


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'decent' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
