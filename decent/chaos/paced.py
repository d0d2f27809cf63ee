"""A task whose steps take at least so long: a run under faults lasts as long as they do.

Any task may be inside; all but the time it takes is its own. Who has stood still catches up, so
that all workers come to the merge while faults go on.
"""

from __future__ import annotations

import math
import time
from typing import Any


class Paced:
    """`task` with its `options`, a local step in `step_s` seconds at the fastest."""

    def __init__(
        self, task: str = "digits", step_s: float = 0.05, seed: int = 0, **options: Any
    ) -> None:
        from decent.learning.task import load

        self.step_s, self._due_s = step_s, math.nan
        self._task = load(task, seed, **options)

    def loss(self, model: Any, batch: Any) -> Any:
        if math.isnan(self._due_s):
            self._due_s = time.monotonic()
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s += self.step_s
        return self._task.loss(model, batch)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._task, name)
