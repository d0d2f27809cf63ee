"""The script that `bench_gossip` launches: argv is case, parameters, batch, steps, rounds.

It alternates between two models of the same shape, of which one takes part in the gossip. While
the other is trained, local time stands still and no exchange is started.
"""

from __future__ import annotations

import json
import math
import sys
import time

import torch
from torch import nn

import decent
from decent.runtime.world import current

LAYERS = 5


def build(width: int) -> nn.Module:
    layers = [part for _ in range(LAYERS) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def main(case: str, parameters: int, batch: int, steps: int, rounds: int) -> None:
    here = current()
    assert here is not None
    torch.manual_seed(0)
    width = round(math.sqrt(parameters / LAYERS))
    model = build(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    twin = build(width)
    twin_optimizer = torch.optim.SGD(twin.parameters(), lr=1e-4)
    x = torch.randn(batch, width)
    measured: dict[str, list[list[float]]] = {"alone": [], "gossip": []}
    cpu = {"alone": 0.0, "gossip": 0.0}

    def loop(which: str, net: nn.Module, descent: torch.optim.Optimizer) -> None:
        times, start_cpu_s = [], time.process_time()
        for _ in range(steps):
            start_s = time.perf_counter()
            descent.zero_grad()
            net(x).square().mean().backward()
            descent.step()
            if which == "gossip":
                gossip.step()
            times.append(time.perf_counter() - start_s)
        measured[which].append(times)
        cpu[which] += time.process_time() - start_cpu_s

    gossip = decent.Gossip(model, optimizer)
    trains = case == "packed" or here.me == 0
    for _ in range(rounds if trains else 0):
        loop("alone", twin, twin_optimizer)
        loop("gossip", model, optimizer)
    gossip.merge()
    gossip.close()
    if here.me == 0 and here.folder is not None:
        result = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "alone_rounds": measured["alone"],
            "gossip_rounds": measured["gossip"],
            "cpu_alone_s": cpu["alone"],
            "cpu_gossip_s": cpu["gossip"],
            "waits_s": gossip.waits_s,
        }
        (here.folder / "bench.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
