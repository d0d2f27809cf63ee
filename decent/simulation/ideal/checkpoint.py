"""The whole of an ideal run in one file, `checkpoint.safetensors`, and back.

Kept are the state, each worker's clock and counts, the optimizer's state, norm statistics, events
planned but left for later, and torch's generator. Random streams are not: they are drawn again, up
to where the run was. A run that goes on is the same to the bit as one that never stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from decent.errors import ConfigError
from decent.folder import write_atomic
from decent.simulation.ideal.events import Events

if TYPE_CHECKING:
    from decent.simulation.ideal.run import Run

NAME = "checkpoint.safetensors"


def save(run: Run, folder: Path) -> None:
    """Write the run as it is between two windows."""
    texts = {"time": repr(run.engine.time), "curve": json.dumps(run.curve), "digest": _digest(run)}
    write_atomic(folder / NAME, to_bytes(_tensors(run), texts))


def restore(run: Run, folder: Path) -> None:
    """Bring a run that has not begun to where the file in `folder` was written.

    Raises ConfigError where there is none, or it is another run's.
    """
    path = folder / NAME
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"{path}: {error}", "a checkpoint of a run", "resume one made with --checkpoint-every"
        ) from None
    live = _tensors(run)
    if texts.get("digest") != _digest(run) or kept.keys() != live.keys():
        raise ConfigError(f"{path}", "a checkpoint of this very configuration", "start afresh")
    run.engine.time, run.curve = float(texts["time"]), json.loads(texts["curve"])
    run.engine.source.until(run.engine.time)
    run.engine.left = Events(*(kept.pop(f"left.{name}").numpy() for name in Events._fields))
    torch.set_rng_state(kept.pop("generator"))
    for name, tensor in kept.items():
        live[name].copy_(tensor)
    run.objective.skip(torch.from_numpy(run.engine.tally[0]))


def _tensors(run: Run) -> dict[str, Tensor]:
    """Everything that changes; all but the generator and what is left are live."""
    engine = run.engine
    left = zip(Events._fields, engine.left, strict=True)
    return {
        "rows": engine.rows, "losses": engine.losses,
        "last": torch.from_numpy(engine.last), "tally": torch.from_numpy(engine.tally),
        "generator": torch.get_rng_state(),
        **{f"left.{name}": torch.from_numpy(column) for name, column in left},
        **{f"optimizer.{name}": each for name, each in engine.optimizer.state().items()},
        **{f"objective.{name}": each for name, each in run.objective.state().items()},
    }  # fmt: skip


def _digest(run: Run) -> str:
    return run.config.to_toml()
