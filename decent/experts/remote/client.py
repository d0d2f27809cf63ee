"""An expert on another machine, as a function of this one: (x, t, condition) → velocity.

`submit` sends a request and comes back with a future, so that several experts are at work at once;
conditional and unconditional halves are rows of one request. Which island answers, and what happens
when none does, is told in `caller`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import torch
from torch import Tensor

from decent.errors import ConfigError
from decent.experts.remote import protocol
from decent.experts.remote.caller import Caller
from decent.experts.remote.protocol import Request, Steps, Velocity

DTYPES = (torch.float16, torch.float32, torch.float64)


class RemoteExpert:
    """Expert `number` with the weights of `digest`, behind those of the caller's islands."""

    def __init__(self, caller: Caller, number: int, digest: str, islands: Sequence[int]) -> None:
        self.number, self.digest, self.islands = number, digest, list(islands)
        self._caller = caller

    def __call__(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """The velocity [N, *S]; raises as the future of `submit` does."""
        return self.submit(x, t, condition).result()

    def submit(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Future[Tensor]:
        """The velocity at x [N, *S], t [N], with labels or vectors `condition` [N, …]; like x. The
        future raises ExpertLost when no island is left that answers. Raises ConfigError for what
        does not fit into a request."""
        request = Velocity("", 0, self.number, self.digest)
        return self._ask(request, x, [t.to(x)], condition)

    def steps(
        self,
        x: Tensor,
        times: Sequence[float],
        condition: Tensor | None = None,
        guidance: float = 1.0,
    ) -> Future[Tensor]:
        """x at the last of `times`, which it has at the first, by Euler steps taken over there,
        guided towards `condition` by the scale `guidance`."""
        if not 2 <= len(times) <= protocol.TIMES:
            raise ConfigError(f"{len(times)} times in one request", f"2 to {protocol.TIMES}")
        request = Steps("", 0, self.number, self.digest, tuple(map(float, times)), guidance)
        return self._ask(request, x, [], condition)

    def _ask(
        self, request: Request, x: Tensor, times: list[Tensor], condition: Tensor | None
    ) -> Future[Tensor]:
        _check(x, request.most)
        labels = [] if condition is None else [condition]
        arrays = [each.detach().cpu().numpy() for each in (x, *times, *labels)]
        return self._caller.ask(request, arrays, x.detach(), self.islands)


def _check(x: Tensor, most: int) -> None:
    if not 1 <= len(x) <= most:
        raise ConfigError(
            f"{len(x)} rows for a remote expert", f"1 to {most}", "sample fewer at a time"
        )
    if x.dtype not in DTYPES:
        raise ConfigError(f"{x.dtype} for a remote expert", "float16, float32 or float64")
