"""What routing costs: one forward of a dense model against an ensemble of eight of its size.

Top-1 is compared with one forward of the whole batch, the full ensemble with eight; the router has
its logits at hand, so that dispatch and mixing alone are added. Experts are asked together where
that pays, else one by one; which is printed. Milliseconds are medians, in turn in one run, of one
thread unless told otherwise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from decent.errors import ConfigError
from decent.experts import networks
from decent.experts.ensemble import Ensemble
from decent.experts.together import together

EXPERTS = 8
SHAPES: dict[str, tuple[int, ...]] = {"mlp": (64,), "dit": (1, 28, 28)}
SURE = 5.0  # spread of the logits


def bench_experts(
    network: str, width: int, batch: int, rounds: int, threads: int
) -> dict[str, Any]:
    """Medians, and the two ratios."""
    for name, value in (("batch", batch), ("rounds", rounds), ("threads", threads)):
        if value < 1:
            raise ConfigError(f"--{name} {value}", "1 or more")
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    shape = SHAPES[network]
    models = [networks.build(network, shape, width=width).eval() for _ in range(EXPERTS)]
    x, t, logits = torch.randn(batch, *shape), torch.rand(batch), SURE * torch.randn(batch, EXPERTS)
    top, full = (Ensemble(models, lambda *_: logits, None, name) for name in ("top_k:1", "full"))
    works: dict[str, Callable[[], object]] = {
        "dense": lambda: models[0](x, t, None),
        "top_1": lambda: top(x, t),
        "eight": lambda: [each(x, t, None) for each in models],
        "full": lambda: full(x, t),
    }
    took: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for name, work in works.items():
                start_s = time.perf_counter()
                work()
                took[name].append(1000 * (time.perf_counter() - start_s))
    ms = {name: statistics.median(each[1:]) for name, each in took.items()}
    return {
        "network": network, "width": width, "batch": batch, "ms": ms,
        "asked": {"top_1": _asked(models, batch), "full": _asked(models, EXPERTS * batch)},
        "top 1 over dense": ms["top_1"] / ms["dense"], "full over eight": ms["full"] / ms["eight"],
    }  # fmt: skip


def _asked(models: list[nn.Module], rows: int) -> str:
    joint = together(models)
    return "one by one" if joint is None or not joint.pays(rows) else "together"
