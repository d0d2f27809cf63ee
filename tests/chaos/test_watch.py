"""What counts as a hang, and what does not. Statuses and seconds are made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from decent.chaos.watch import Hang, Watchdog, last_words


def status(worker: int, state: str, step: int = 0) -> dict[str, Any]:
    return {"worker": worker, "state": state, "step": step}


def watch(dog: Watchdog, tell: Callable[[int], list[dict[str, Any]]]) -> None:
    """For a hundred seconds."""
    for s in range(100):
        dog(tell(s), float(s))


def test_who_makes_steps_does_not_hang() -> None:
    dog = Watchdog(10.0, 1000.0)
    watch(dog, lambda s: [status(0, "training", s), status(1, "training", s // 9)])


def test_one_that_makes_none_does() -> None:
    dog = Watchdog(10.0, 1000.0)
    with pytest.raises(Hang, match="worker 1 has made no step for 11 s"):
        watch(dog, lambda s: [status(0, "training", s), status(1, "training", 7)])


def test_waiting_for_others_at_the_merge_is_no_hang() -> None:
    dog = Watchdog(10.0, 1000.0)
    watch(dog, lambda s: [status(0, "training", s), status(1, "merging", 7)])


def test_a_merge_that_does_not_get_on_is() -> None:
    dog = Watchdog(10.0, 1000.0)
    with pytest.raises(Hang, match="nothing has happened"):
        watch(dog, lambda s: [status(0, "merging", 9), status(1, "merging", 9), status(2, "dead")])


def test_the_ended_may_rest() -> None:
    dog = Watchdog(10.0, 50.0)
    watch(dog, lambda s: [status(0, "done", 9), status(1, "dead")])


def test_the_whole_has_to_end() -> None:
    dog = Watchdog(10.0, 50.0)
    with pytest.raises(Hang, match="not ended after 51 s"):
        watch(dog, lambda s: [status(0, "training", s)])


def test_last_words(tmp_path: Path) -> None:
    home = tmp_path / "workers/1"
    home.mkdir(parents=True)
    lines = [{"event": "request", "s": 1.5, "peer": 0}, {"event": "skip", "s": 2.0, "peer": 0}]
    (home / "trace.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"event": "unfin')
    words = last_words(tmp_path, [status(0, "done"), status(1, "merging", 9), status(2, "ready")])
    assert words == [
        "worker 1: merging at step 9; last in its trace: event skip, s 2.0, peer 0",
        "worker 2: ready at step 0; last in its trace: nothing",
    ]
