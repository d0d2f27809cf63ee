"""Evaluation mode for a while: every module's own flag comes back, also after an error.

`model.train()` afterwards would not do: it would also wake layers that were frozen on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """`model` in evaluation mode and without gradients."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training
