"""How workers find one another: a folder that all can read, one small file for each worker.

No process serves it, so none can be lost; a worker that restarts writes its file anew.
"""

from __future__ import annotations

from pathlib import Path

from decent.folder import read_json, worker_folder, write_json


class Rendezvous:
    """`workers/<id>/endpoint.json` of a run folder."""

    def __init__(self, run: Path) -> None:
        self._run = run

    def publish(self, worker: int, address: str) -> None:
        write_json(worker_folder(self._run, worker) / "endpoint.json", {"address": address})

    def lookup(self, worker: int) -> str | None:
        """Where `worker` listens; None if it has not said so yet."""
        try:
            return str(read_json(worker_folder(self._run, worker) / "endpoint.json")["address"])
        except FileNotFoundError:
            return None
