"""Where a model is, and what it is asked there.

Data and latents stay on the CPU, where they may be memory-mapped, and all that is random is drawn
there; what a model is asked moves to where the model is, batch by batch. So there is one path for
all devices, and a run's batches, times and noise are the same on each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from decent.experts.prediction import Model


def device_of(model: Model) -> torch.device:
    """Where `model` wants to be asked: with its first parameter, or on the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else iter(())
    return next((each.device for each in parameters), torch.device("cpu"))


def at(
    device: torch.device, x: Tensor, t: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What a model is asked, on `device`."""
    return x.to(device), t.to(device), None if condition is None else condition.to(device)
