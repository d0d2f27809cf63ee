"""How workers find one another: a folder that all can read, one small file for each worker.

No process serves it, so none can be lost; a worker that restarts writes its file anew. Where
something stands between two workers, `via/<lower>-<higher>.json` says where the higher is to dial
instead.
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

    def publish_via(self, lower: int, higher: int, address: str) -> None:
        write_json(self._via(lower, higher), {"address": address})

    def via(self, lower: int, higher: int) -> str | None:
        """Where to dial across that edge instead of the lower's own address, if anywhere."""
        try:
            return str(read_json(self._via(lower, higher))["address"])
        except FileNotFoundError:
            return None

    def _via(self, lower: int, higher: int) -> Path:
        return self._run / "via" / f"{lower}-{higher}.json"

    def lookup(self, worker: int) -> str | None:
        """Where `worker` listens; None if it has not said so yet."""
        try:
            return str(read_json(worker_folder(self._run, worker) / "endpoint.json")["address"])
        except FileNotFoundError:
            return None
