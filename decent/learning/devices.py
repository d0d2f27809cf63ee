"""Devices by name, refused in words before anything starts where they are not there."""

from __future__ import annotations

import torch

from decent.errors import ConfigError


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


def _there() -> list[str]:
    kind, count = torch.accelerator.current_accelerator(), torch.accelerator.device_count()
    return ["cpu", *(f"{kind.type}:{i}" for i in range(count) if kind is not None)]
