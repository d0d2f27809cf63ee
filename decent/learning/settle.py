"""What a configuration leaves to the task: how curved it is, which DADAO has to know.

With μ and L come the constants of its steps: plain SGD with γ = 1/(4L), to which the worker adds
DADAO's residual (see `dynamics.dadao`).
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from decent.config import Config, Named
from decent.errors import TaskError
from decent.folder import write_atomic
from decent.learning.task import load


def settle(config: Config, workers: int, out: Path | None = None) -> Config:
    """`config` with dynamics.mu, dynamics.L and the optimizer that go with them filled in, if the
    dynamics wants to know; in the run folder `out` too. Raises TaskError for a task that does not
    know its curvature."""
    given, dynamics = config, config.make_dynamics()
    if getattr(dynamics, "needs_curvature", False):
        task = load(config.task.name, config.seed, **config.task.options)
        problem = task.objective(workers) if hasattr(task, "objective") else None
        mu, L = getattr(problem, "mu", None), getattr(problem, "L", None)
        if mu is None or L is None:
            raise TaskError(
                f"task {task.name!r} with dynamics {dynamics.name!r}",
                "a task that is strongly convex and knows how much, such as ridge or logistic",
                "set dynamics.mu and dynamics.L, or take another dynamics",
            )
        known = {"mu": float(mu), "L": float(L)} | config.dynamics.options
        named = msgspec.structs.replace(config.dynamics, options=known)
        config = msgspec.structs.replace(config, dynamics=named)
    L = getattr(config.make_dynamics(), "L", None)
    if L is not None and config.optimizer is None:
        step = Named(name="SGD", options={"lr": 1 / (4 * L)})
        config = msgspec.structs.replace(config, optimizer=step)
    if out is not None and config is not given:
        write_atomic(out / "config.toml", config.to_toml().encode())
    return config
