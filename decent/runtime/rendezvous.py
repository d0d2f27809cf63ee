"""How workers find one another: a folder that all can read, one small file for each worker.

No process serves it, so none can be lost; a worker that restarts writes its file anew. Where
something stands between two workers, `via/<lower>-<higher>.json` says where the higher is to dial
instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decent.folder import worker_folder, write_json

LARGEST = 1 << 16
"""bytes of such a file; anything beyond this is not one of ours"""
SCHEMES = ("tcp://", "ipc://")


class Rendezvous:
    """`workers/<id>/endpoint.json` of a run folder."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def publish(
        self,
        worker: int,
        address: str,
        arena: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        path = worker_folder(self._run, worker) / "endpoint.json"
        write_json(path, {"address": address, "arena": arena, "key": key})

    def arena(self, worker: int) -> dict[str, Any] | None:
        """Where its shared memory is; None if it has none, or has not said so yet."""
        found = self._said(worker).get("arena")
        return found if isinstance(found, dict) else None

    def key(self, worker: int) -> str | None:
        """Its public key; None if it has none, or has not said so yet."""
        found = self._said(worker).get("key")
        return found if isinstance(found, str) else None

    def publish_via(self, lower: int, higher: int, address: str) -> None:
        write_json(self._via(lower, higher), {"address": address})

    def via(self, lower: int, higher: int) -> str | None:
        """Where to dial across that edge instead of the lower's own address, if anywhere."""
        found = _read(self._via(lower, higher)).get("address")
        return found if isinstance(found, str) else None

    def _via(self, lower: int, higher: int) -> Path:
        return self._run / "via" / f"{lower}-{higher}.json"

    def lookup(self, worker: int) -> str | None:
        """Where `worker` listens; None if it has not said so yet."""
        found = self._said(worker).get("address")
        return found if isinstance(found, str) and found.startswith(SCHEMES) else None

    def _said(self, worker: int) -> dict[str, Any]:
        """All that it has published."""
        return _read(worker_folder(self._run, worker) / "endpoint.json")


def _read(path: Path) -> dict[str, Any]:
    """What stands there; nothing if there is nothing yet, or nonsense."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
