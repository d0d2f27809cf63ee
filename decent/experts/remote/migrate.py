"""Trajectories that travel: each is handed to the island of its likeliest expert, which takes
several Euler steps in a row with that expert alone and hands it back.

The caller asks its router again every `every` steps. This is top-1 sampling, with its bias: at
t ≈ 1 without a condition the largest cluster always wins. With `every` = 1 it is local top-1
sampling, to rounding; a step more on an island is a round trip less. Of guidance both halves are
that expert's, chosen under the condition, as top-1 chooses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from decent.errors import ConfigError, ExpertLost, RuntimeFault
from decent.experts import solvers
from decent.experts.draw import Draw
from decent.experts.guidance import Guided
from decent.experts.prediction import Model
from decent.experts.sampling import Samples


@torch.no_grad()
def sample_migrating(
    router: Model,
    experts: Sequence[Model],
    noise: Tensor,
    steps: int = 40,
    every: int = 1,
    condition: Tensor | None = None,
    guidance: float = 1.0,
    seed: int = 0,
) -> Samples:
    """Samples from `noise` [N, *S], N ≥ 0; `router` gives logits [N, K]. Experts without `steps`
    of their own take them here.

    Rows whose expert is lost start again without it, from fresh noise of (seed, row). Raises
    ConfigError for impossible numbers, RuntimeFault when no expert is left.
    """
    if steps < 1 or every < 1:
        raise ConfigError(f"steps = {steps}, every = {every}", "1 or more of each")
    if not math.isfinite(guidance):
        raise ConfigError(f"guidance = {guidance}", "a finite scale")
    times = [1 - i / steps for i in range(steps + 1)]
    legs = [times[at : at + every + 1] for at in range(0, steps, every)]
    journey = _Journey(router, experts, noise.clone(), condition, guidance, legs)
    rows, draw = torch.arange(len(noise)), Draw.of(seed, range(len(noise)))
    while len(rows):
        rows = journey.travel(rows)
        journey.restarted += rows.tolist()
        if len(rows):
            journey.x[rows] = draw.at(rows).normal(noise.shape[1:]).to(noise)
    return Samples(journey.x, {
        "method": "euler", "steps": steps, "every": every, "guidance": guidance, "seed": seed,
        "strategy": "top_k:1", "shape": list(noise.shape), "evaluations": steps, "active": 1.0,
        "moves": journey.moves, "restarted": sorted(journey.restarted),
        "lost": {str(k): why for k, why in journey.lost.items()},
    })  # fmt: skip


@dataclass
class _Journey:
    router: Model
    experts: Sequence[Model]
    x: Tensor
    condition: Tensor | None
    guidance: float
    legs: list[list[float]]
    lost: dict[int, str] = field(default_factory=dict)
    restarted: list[int] = field(default_factory=list)
    moves: int = 0
    """how often a trajectory has changed from one expert to another"""

    def travel(self, rows: Tensor) -> Tensor:
        """Take `rows` from t = 1 to 0; those that are stranded on the way."""
        stranded, before = [], torch.full((len(rows),), -1)
        for times in self.legs:
            choice = self._choice(rows, times[0])
            self.moves += int(((choice != before) & (before >= 0)).sum())
            left = self._leg(rows, choice, times)
            stranded.append(rows[left])
            rows, before = rows[~left], choice[~left]
        return torch.cat(stranded)

    def _choice(self, rows: Tensor, now: float) -> Tensor:
        """The likeliest live expert of each row."""
        if len(self.lost) == len(self.experts):
            raise RuntimeFault(f"no expert is left: {self.lost}")
        if len(rows) == 0:
            return rows
        x = self.x[rows]
        logits = self.router(x, torch.full((len(x),), now).to(x), self._labels(rows))
        gone = torch.tensor(list(self.lost), dtype=torch.int64, device=logits.device)
        return logits.index_fill(-1, gone, -torch.inf).argmax(-1).cpu()

    def _leg(self, rows: Tensor, choice: Tensor, times: list[float]) -> Tensor:
        """All islands at once; which rows [N] have lost their expert."""
        started: dict[int, Callable[[], Tensor]] = {}
        left = torch.zeros(len(rows), dtype=torch.bool)
        for k in sorted(set(choice.tolist())):
            own = rows[choice == k]
            share = self.x[own], times, self._labels(own), self.guidance
            started[k] = _started(self.experts[k], *share)
        for k, result in started.items():
            try:
                self.x[rows[choice == k]] = result()
            except ExpertLost as error:
                self.lost[k] = f"at t = {times[0]:.3f}: {error}"
                left |= choice == k
        return left

    def _labels(self, rows: Tensor) -> Tensor | None:
        return None if self.condition is None else self.condition[rows]


def _started(
    expert: Model, x: Tensor, times: list[float], condition: Tensor | None, guidance: float
) -> Callable[[], Tensor]:
    """What gives x at the last of `times`; a remote expert is at work on it from here."""
    steps: Callable[..., Future[Tensor]] | None = getattr(expert, "steps", None)
    if steps is not None:
        return steps(x, times, condition, guidance).result
    guided = Guided(expert, guidance)
    return lambda: solvers.along(times, solvers.euler, lambda x, t: guided(x, t, condition), x)
