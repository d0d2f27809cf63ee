"""What the fork server imports once for all workers: torch, and what torch imports on first use."""

import torch

import decent.learning.digits
import decent.runtime.child  # noqa: F401

torch.optim.SGD([torch.zeros(1)], lr=1.0)  # the first optimizer imports a second's worth of torch
