"""DADAO on the data and the very events of a file, held against the trajectory in it.

The file is a NumPy archive with n workers' ridge regression f_i(x) = (1/m)·‖design_i x − target_i‖²
(`design` [n, m, d], `target` [n, m], `x0` [n, d], `x_star` [d], `mu`, `L`), the rates' `chi_1` and
`chi_2`, the events (`event_time`, `event_i`, `event_j` [E]; event_j = −1 is a gradient) and what is
expected: `error` at `error_time`, the mean over workers of ‖x_i − x*‖² with each x_i as of that
worker's last event, and `final_state` [n, 6, d] with each worker as of its `final_time`.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decent.dynamics import Dadao
from decent.errors import ConfigError
from decent.learning.ridge import RidgeObjective
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Recorded

KEYS = (
    "design", "target", "x0", "x_star", "mu", "L", "chi_1", "chi_2", "event_time", "event_i",
    "event_j", "error", "error_time", "final_state", "final_time",
)  # fmt: skip
FINITE = ("x0", "x_star", "error", "error_time", "final_state", "final_time")
Arrays = dict[str, NDArray[Any]]


def replay(path: Path) -> dict[str, Any]:
    """The largest relative deviations from the file's error curve and final state.

    Raises ConfigError for a file that is not of this kind, TaskError for data that is not finite,
    ScheduleError for events that are none.
    """
    file = _read(path)
    n, m, d = file["design"].shape
    objective = RidgeObjective(file["design"], file["target"])
    dynamics = Dadao(float(file["mu"]), float(file["L"]))
    events = Recorded(n, file["event_time"], file["event_i"], file["event_j"])
    state = torch.zeros(6, n, d, dtype=torch.float64)
    state[0] = torch.from_numpy(file["x0"])
    system = dynamics.system(float(file["chi_1"]), float(file["chi_2"]))
    engine = Engine(objective, system, events, state)
    errors = [_error(engine, float(time), file["x_star"]) for time in file["error_time"]]
    engine.run(np.inf)
    final = engine.state(file["final_time"]).transpose(0, 1).numpy()
    scale = np.abs(file["final_state"]).max(axis=(0, 2))[:, np.newaxis]
    return {
        "file": str(path), "workers": n, "samples": m, "features": d,
        "gradients": engine.gradients, "exchanges": engine.exchanges,
        "error_deviation": float(np.abs(np.array(errors) / file["error"] - 1).max()),
        "state_deviation": float(np.abs((final - file["final_state"]) / scale).max()),
        "error_first": errors[0], "error_last": errors[-1],
    }  # fmt: skip


def _error(engine: Engine, time: float, optimum: NDArray[np.float64]) -> float:
    """Mean over the workers of ‖x_i − x*‖² once the events up to and at `time` are done."""
    if time > 0:
        engine.run(float(np.nextafter(time, np.inf)))
    points = engine.state()[0]  # as of each worker's last event
    return float((points - torch.from_numpy(optimum)).square().sum(1).mean())


def _read(path: Path) -> Arrays:
    try:
        with np.load(path, allow_pickle=False) as archive:
            file = dict(archive)
    except (OSError, EOFError, TypeError, ValueError, zlib.error, zipfile.BadZipFile) as error:
        raise ConfigError(
            f"--events {path}: {getattr(error, 'strerror', None) or 'no such archive'}",
            "a NumPy archive (.npz) of arrays",
            "check the path",
        ) from None
    if missing := [key for key in KEYS if key not in file]:
        raise ConfigError(f"--events {path}: no {', '.join(missing)} in it", ", ".join(KEYS))
    shapes = {key: file[key].shape for key in KEYS}
    n, m, d = (shapes["design"] + (0, 0, 0))[:3]
    expected = {
        "design": (n, m, d), "target": (n, m), "x0": (n, d), "x_star": (d,),
        "final_state": (n, 6, d), "final_time": (n,), "error": shapes["error_time"][:1],
        "mu": (), "L": (), "chi_1": (), "chi_2": (),
    }  # fmt: skip
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise ConfigError(f"--events {path}: {key} of shape {shapes[key]}", f"shape {shape}")
    for key in KEYS:
        numbers = file[key].dtype.kind in "fiu"
        if not numbers or (key in FINITE and not np.isfinite(file[key]).all()):
            raise ConfigError(f"--events {path}: {key} holds what is no number", "finite numbers")
    return file
