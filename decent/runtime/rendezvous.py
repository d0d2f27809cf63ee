"""How workers find one another: a folder that all can read, one small file for each worker.

No process serves it, so none can be lost; a worker that restarts writes its file anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decent.folder import read_json, worker_folder, write_json


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
        try:
            found = read_json(worker_folder(self._run, worker) / "endpoint.json").get("arena")
        except FileNotFoundError:
            return None
        return found if isinstance(found, dict) else None

    def key(self, worker: int) -> str | None:
        """Its public key; None if it has none, or has not said so yet."""
        try:
            found = read_json(worker_folder(self._run, worker) / "endpoint.json").get("key")
        except FileNotFoundError:
            return None
        return found if isinstance(found, str) else None

    def lookup(self, worker: int) -> str | None:
        """Where `worker` listens; None if it has not said so yet."""
        try:
            return str(read_json(worker_folder(self._run, worker) / "endpoint.json")["address"])
        except FileNotFoundError:
            return None
