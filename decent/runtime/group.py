"""Means over torch.distributed's process group, in processes that decent did not launch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import distributed

Vector = np.ndarray[Any, Any]


def grouped() -> bool:
    """Whether there is such a group."""
    return distributed.is_available() and distributed.is_initialized()


def members() -> list[int]:
    return list(range(distributed.get_world_size()))


def mean(vector: Vector, weight: float) -> Vector:
    """The weighted mean over the group."""
    total = torch.cat([torch.from_numpy(vector) * weight, torch.tensor([weight])])
    distributed.all_reduce(total)
    result: Vector = (total[:-1] / total[-1]).numpy()
    return result
