"""The script that `bench_soak` launches: argv is parameters, seconds."""

from __future__ import annotations

import sys
import time

import torch
from torch import nn

import decent

STEP_S = 0.02


def main(parameters: int, seconds: float) -> None:
    """Descend on ½‖x − own‖², with `own` another at each worker, so that they never agree."""
    own = torch.randn(parameters)  # each worker's seed is its own
    model = nn.ParameterList([nn.Parameter(torch.zeros(parameters))])
    [x] = model.parameters()
    optimizer = torch.optim.SGD([x], lr=0.01)
    x.grad = torch.empty(parameters)
    with decent.Gossip(model, optimizer) as gossip:
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            torch.sub(x.detach(), own, out=x.grad)
            optimizer.step()
            gossip.step()
            time.sleep(STEP_S)
        gossip.merge()


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
