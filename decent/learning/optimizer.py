"""An optimizer of torch.optim by its name and options, as a configuration gives them."""

from __future__ import annotations

import torch

from decent.config import Named
from decent.errors import ConfigError


def make_optimizer(chosen: Named, model: torch.nn.Module) -> torch.optim.Optimizer:
    """`torch.optim.<name>(model.parameters(), **options)`; raises ConfigError in words."""
    name, options = chosen.name, chosen.options
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise ConfigError(
            f"optimizer.name = {name!r}", "a class of torch.optim, such as SGD, Adam or AdamW"
        )
    try:
        return kind(model.parameters(), **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer {name} with {options}: {error}") from None
