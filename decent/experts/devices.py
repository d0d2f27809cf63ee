"""Where tensors are: devices by name, refused before anything starts, and that of a model.

Data and latents stay on the CPU, where they may be memory-mapped, and all that is random is drawn
there; what a model is asked moves to where the model is, batch by batch. So there is one path for
all devices, and a run's batches, times and noise are the same on each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decent.errors import ConfigError
from decent.experts.prediction import Model


def known(name: str) -> torch.device:
    """The device called `name`, such as "cpu", "cuda" or "cuda:1". Raises ConfigError for one that
    this machine, or this torch, does not have."""
    there = _there()
    if name not in there and f"{name}:0" not in there:
        raise ConfigError(
            f"device {name!r}",
            ", ".join(there),
            "" if len(there) > 1 else "torch sees no other here: is it a build for the CPU alone?",
        )
    return torch.device(name)


def each_known(names: str) -> list[str]:
    """The devices called `names`, with commas between. Raises ConfigError as `known` does."""
    return [str(known(name.strip())) for name in names.split(",")]


def device_of(model: Model) -> torch.device:
    """Where `model` wants to be asked: with its first parameter, or on the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((each.device for each in parameters), torch.device("cpu"))


def at(
    device: torch.device, x: Tensor, t: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a model is asked, on `device`."""
    return x.to(device), t.to(device), None if condition is None else condition.to(device)


def _there() -> list[str]:
    kind, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
    return ["cpu", *(f"{kind.type}:{i}" for i in range(count) if kind is not None)]
