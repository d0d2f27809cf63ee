"""Solvers of dx/dt = u(x, t), from t = 1 to t = 0.

    euler          x ← x + h u(x, t), order 1, one call of the field per step
    heun           the mean of u at both ends of the step, order 2, two calls
    adaptive:tol   Bogacki–Shampine 3(2), a step of its own for each row, error below tol

No field is asked at t = 0, where that of a data set has no limit: the last step is Euler's (heun),
or goes straight from t = 10⁻³ to 0 (adaptive). Bogacki & Shampine, Appl. Math. Lett. 2 (1989) 321.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from decent.errors import ConfigError, RuntimeFault
from decent.experts.path import spread

Field = Callable[[Tensor, Tensor], Tensor]
"""(x [N, *S], t [N]) → dx/dt [N, *S]"""
Progress = Callable[[int, int], None]
"""(steps done, steps in all)"""
Step = Callable[[Field, Tensor, float, float], Tensor]
"""(field, x at t, t, time of the next) → x there"""
Solver = Callable[[Field, Tensor, int, Progress | None], Tensor]
"""(field, x at t = 1, steps, progress) → x at t = 0"""

END = 1e-3  # adaptive: from here one step to t = 0
MOST = 10_000  # adaptive: steps of a trajectory


def solver(method: str) -> Solver:
    """The solver called `method`; raises ConfigError for an unknown one."""
    name, _, number = method.partition(":")
    if name == "adaptive":
        return partial(adaptive, tolerance=_tolerance(method, number or "1e-3"))
    fixed: dict[str, Step] = {"euler": euler, "heun": heun}
    if method not in fixed:
        raise ConfigError(f"method {method!r}", "euler, heun, adaptive or adaptive:tolerance")
    return partial(_uniform, fixed[method])


def along(
    times: Sequence[float], step: Step, field: Field, x: Tensor, on_step: Progress | None = None
) -> Tensor:
    """x after a step from each of `times` to the next."""
    for number, (t, then) in enumerate(pairwise(times), start=1):
        x = step(field, x, t, then)
        if on_step is not None:
            on_step(number, len(times) - 1)
    return x


def euler(field: Field, x: Tensor, t: float, then: float) -> Tensor:
    return x + (then - t) * field(x, _times(x, t))


def heun(field: Field, x: Tensor, t: float, then: float) -> Tensor:
    slope = field(x, _times(x, t))
    guess = x + (then - t) * slope
    if then == 0:
        return guess
    return x + (then - t) / 2 * (slope + field(guess, _times(x, then)))


def adaptive(
    field: Field, x: Tensor, steps: int, on_step: Progress | None, tolerance: float
) -> Tensor:
    """A row's step is accepted when its error, the root mean square over tolerance·(1 + |x|), is at
    most 1. `steps` sets the first step and the scale of progress."""
    t = torch.ones(len(x), dtype=torch.float64, device=x.device)
    h = torch.full_like(t, 1 / steps)
    slope = field(x, t.to(x.dtype))
    for _ in range(MOST):
        h = torch.minimum(h, t - END)  # 0 where a row has arrived
        new, there, error = _bogacki_shampine(field, x, t, h, slope, tolerance)
        accepted = error <= 1
        x = torch.where(spread(accepted, x) > 0, new, x)
        slope = torch.where(spread(accepted, x) > 0, there, slope)
        t = torch.where(accepted, t - h, t)
        if on_step is not None:
            on_step(min(int((1 - t.max().item()) * steps), steps - 1), steps)
        if not (t > END + 1e-9).any():
            return x - END * field(x, t.to(x.dtype))
        h = h * (0.9 * error.clamp(min=1e-9) ** (-1 / 3)).clamp(0.2, 5)
    raise RuntimeFault(f"method adaptive: not at t = 0 after {MOST} steps; raise its tolerance")


def _bogacki_shampine(
    field: Field, x: Tensor, t: Tensor, h: Tensor, first: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x at t − h, the slope there, and each row's error."""
    step = -spread(h, x)

    def asked(part: float) -> Tensor:
        return (t - part * h).to(x.dtype)

    second = field(x + step / 2 * first, asked(1 / 2))
    third = field(x + step * 3 / 4 * second, asked(3 / 4))
    new = x + step * (2 / 9 * first + 1 / 3 * second + 4 / 9 * third)
    last = field(new, asked(1))
    error = step * (-5 / 72 * first + 1 / 12 * second + 1 / 9 * third - 1 / 8 * last)
    error = (error / (tolerance * (1 + x.abs()))).flatten(1).double().square().mean(1).sqrt()
    if not error.isfinite().all():
        raise RuntimeFault("method adaptive: the model's velocities blow up")
    return new, last, error


def _uniform(step: Step, field: Field, x: Tensor, steps: int, on_step: Progress | None) -> Tensor:
    return along([1 - i / steps for i in range(steps + 1)], step, field, x, on_step)


def _times(x: Tensor, t: float) -> Tensor:
    return torch.full((len(x),), t, dtype=x.dtype, device=x.device)


def _tolerance(method: str, number: str) -> float:
    try:
        tolerance = float(number)
    except ValueError:
        tolerance = 0.0
    if not 0 < tolerance < 1:
        raise ConfigError(f"method {method!r}", "a tolerance between 0 and 1, as in adaptive:1e-3")
    return tolerance
