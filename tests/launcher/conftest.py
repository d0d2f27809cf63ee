from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.jobs import Job, alive


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """A run; when its test is over, none of its workers may be left."""
    made = Job(tmp_path)
    yield made
    left = [status["pid"] for status in made.seen if "pid" in status and alive(status["pid"])]
    assert left == []
