"""Which experts answer for a row, and with what weights: p(k | x_t, t, c) or less of it.

A strategy takes the router's logits [N, K] and gives weights [N, K] whose rows sum to 1. With p the
softmax of the logits:

    full         all of p
    top_k:n      the n most probable
    nucleus:q    the most probable until their sum reaches q, the one that crosses it included
    threshold:τ  those of p ≥ τ, and the most probable in any case
    sample:n     n draws from p, averaged
    ancestral    one cluster drawn at the first step and kept: from π, or from p(k | x_1, 1, c)
    oracle       the true cluster of each row

Whatever is kept is renormalised: softmax over the kept logits, which stays finite where all the
kept probabilities underflow. A choice may depend on time: "full@0.7, top_k:1" is full while
t > 0.7 and the best expert afterwards. McAllister et al., arXiv 2501.05450, section 4.2.

At t = 1 the state says nothing of the cluster, so top_k:1 without a condition always starts in the
largest one: prefer nucleus or threshold there, or ancestral, which needs no router at all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from decent.errors import ConfigError, RuntimeFault
from decent.experts.draw import Draw

START = 0.999
"""from here up a state is as good as noise, and knows nothing of its cluster"""
LEAST = -1e30  # stands for a logit of −∞ where all that are kept are −∞


class Strategy(ABC):
    """Weights [N, K] from logits [N, K] at times t [N].

    Logits may also be [2, N, K], the conditional and the unconditional half of guidance: then the
    first half chooses, and both are weighted by their own logits over what it chose. An expert
    whose logits are all −∞ is not there.
    """

    routed = True
    """whether p(k | x_t, t, c) is needed; if not, log π does"""

    @abstractmethod
    def __call__(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor: ...

    def prior(self, t: Tensor, draw: Draw, conditional: bool) -> bool:
        """Whether π does in place of p(k | x_t, t, c) at this step."""
        return not self.routed

    def __str__(self) -> str:
        """As `strategy` reads it; the class's name for one of the user's own."""
        known: dict[Any, str] = {make: name for name, (make, _) in _FORMS.items()}
        return ":".join(
            map(str, (known.get(type(self), type(self).__name__), *vars(self).values()))
        )


class Subset(Strategy):
    """A strategy that chooses some experts and renormalises over them."""

    def __call__(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        gone = torch.isneginf(logits)
        gone = gone.all(0) if logits.dim() == 3 else gone
        return renormalised(logits, self.choose(_first(logits), t, draw) & ~gone)

    @abstractmethod
    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        """Which experts are asked, [N, K] bool."""


def probabilities(logits: Tensor) -> Tensor:
    """Softmax in float32 at least."""
    return torch.softmax(_wide(logits), -1)


def renormalised(logits: Tensor, keep: Tensor) -> Tensor:
    """Softmax of `logits` over what `keep` has."""
    return probabilities(_wide(logits).clamp(min=LEAST).masked_fill(~keep, -torch.inf))


def _wide(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def drawn_from(p: Tensor, uniform: Tensor) -> Tensor:
    """Indices [N, n] drawn from p [N, K] by numbers `uniform` [N, n] in [0, 1)."""
    sums = p.double().cumsum(-1)
    drawn = torch.searchsorted(sums, uniform * sums[:, -1:], right=True)
    return drawn.clamp(max=p.shape[-1] - 1)


class Full(Subset):
    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        return torch.ones_like(logits, dtype=torch.bool)


@dataclass(frozen=True)
class TopK(Subset):
    n: int = 1

    def __call__(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        if self.n > 1:
            return super().__call__(logits, t, draw)
        best = _first(logits).argmax(-1, keepdim=True)  # of one the softmax is 1
        return torch.zeros_like(_wide(logits)).scatter(-1, best.expand(*logits.shape[:-1], 1), 1.0)

    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        best = logits.topk(min(self.n, logits.shape[-1])).indices
        return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, best, True)


@dataclass(frozen=True)
class Nucleus(Subset):
    q: float = 0.9

    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        p, order = probabilities(logits).sort(dim=-1, descending=True, stable=True)
        before = p.cumsum(-1) - p
        keep = before < self.q
        keep[:, 0] = True
        return torch.zeros_like(keep).scatter(-1, order, keep)


@dataclass(frozen=True)
class Threshold(Subset):
    least: float = 0.1

    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        return (probabilities(logits) >= self.least).scatter(-1, logits.argmax(-1)[:, None], True)


@dataclass(frozen=True)
class Sample(Strategy):
    n: int = 1

    def __call__(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        p = probabilities(_first(logits))
        drawn = drawn_from(p, draw.uniform(self.n).to(p.device))
        share = torch.full_like(drawn, 1 / self.n, dtype=p.dtype)
        weights = torch.zeros_like(p).scatter_add(-1, drawn, share)
        if logits.dim() == 2:
            return weights
        return torch.stack([weights, renormalised(logits[1], weights > 0)])


class Ancestral(Subset):
    routed = False

    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        kept = draw.kept().to(logits.device)
        gone = torch.isneginf(logits.gather(-1, kept.clamp(min=0)[:, None]))[:, 0]
        new = (kept < 0) | gone
        if new.any():
            fresh = draw.at(new)
            p = probabilities(logits[new])
            fresh.keep(drawn_from(p, fresh.uniform(1).to(p.device))[:, 0])
        return _one_hot(draw.kept(), logits)

    def prior(self, t: Tensor, draw: Draw, conditional: bool) -> bool:
        settled = bool((draw.kept() >= 0).all())
        return settled or (not conditional and bool((t >= START).all()))


class Oracle(Subset):
    routed = False

    def choose(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        known = draw.kept()
        if (known < 0).any():
            raise ConfigError("strategy oracle", "the true cluster of every row", "give clusters=")
        chosen = _one_hot(known, logits)
        if torch.isneginf(logits[chosen]).any():
            raise RuntimeFault("strategy oracle: the expert of a row's true cluster is lost")
        return chosen


@dataclass(frozen=True)
class ByTime(Strategy):
    """Each part while t is above its time; the last one has no time below it."""

    parts: tuple[tuple[float, Strategy], ...]

    @property
    def routed(self) -> bool:  # type: ignore[override]
        return any(part.routed for _, part in self.parts)

    def __call__(self, logits: Tensor, t: Tensor, draw: Draw) -> Tensor:
        weights = probabilities(logits)
        for part, rows in self._shares(t):
            weights[..., rows, :] = part(logits[..., rows, :], t[rows], draw.at(rows))
        return weights

    def prior(self, t: Tensor, draw: Draw, conditional: bool) -> bool:
        shares = self._shares(t)
        return all(part.prior(t[rows], draw.at(rows), conditional) for part, rows in shares)

    def __str__(self) -> str:
        *timed, (_, last) = self.parts
        return ", ".join([*(f"{part}@{above:g}" for above, part in timed), str(last)])

    def _shares(self, t: Tensor) -> list[tuple[Strategy, Tensor]]:
        """The parts in force, and a mask of the rows of each."""
        shares, left = [], torch.ones_like(t, dtype=torch.bool)
        for above, part in self.parts:
            shares.append((part, left & (t > above)))
            left = left & (t <= above)
        return [(part, rows) for part, rows in shares if rows.any()]


_FORMS: dict[str, tuple[Callable[..., Strategy], type | None]] = {
    "full": (Full, None),
    "top_k": (TopK, int),
    "nucleus": (Nucleus, float),
    "threshold": (Threshold, float),
    "sample": (Sample, int),
    "ancestral": (Ancestral, None),
    "oracle": (Oracle, None),
}


def strategy(text: str | Strategy) -> Strategy:
    """The strategy written as `text`, such as "nucleus:0.9" or "full@0.7, top_k:1".

    Raises ConfigError for an unknown name, a missing or impossible number, or times that do not
    fall.
    """
    if isinstance(text, Strategy):
        return text
    parts = [part.strip() for part in text.split(",")]
    timed = [_timed(part, last=part is parts[-1]) for part in parts]
    if len(timed) == 1:
        return timed[0][1]
    times = [above for above, _ in timed]
    if sorted(set(times), reverse=True) != times:
        raise ConfigError(f"strategy {text!r}", "times that fall, as in full@0.7, top_k:1")
    return ByTime(tuple(timed))


def _timed(text: str, last: bool) -> tuple[float, Strategy]:
    """`name:number@time` as the time and the strategy; the last one has no time."""
    body, _, above = text.partition("@")
    time = -1.0 if last and not above else _number(text, above, float, 0, 1)
    if last and above:
        raise ConfigError(f"strategy {text!r}", "one more after it, for the times below")
    return time, _single(body.strip())


def _single(text: str) -> Strategy:
    name, _, number = text.partition(":")
    if name not in _FORMS:
        raise ConfigError(
            f"strategy {text!r}",
            "full, top_k:n, nucleus:q, threshold:p, sample:n, ancestral or oracle",
        )
    make, kind = _FORMS[name]
    if kind is None and not number:
        return make()
    if kind is None:
        raise ConfigError(f"strategy {text!r}", f"{name} without a number")
    if kind is int:
        return make(_number(text, number, int, 1, 1 << 20))
    return make(_number(text, number, float, 0, 1))


def _number(text: str, number: str, kind: type, low: float, high: float) -> Any:
    try:
        value = kind(number)
    except ValueError:
        value = None
    if value is None or not low <= value <= high:
        what = "a whole number of 1 or more" if kind is int else "a number from 0 to 1"
        raise ConfigError(f"strategy {text!r}", f"{what} after the name", "as in nucleus:0.9")
    return value


def _first(logits: Tensor) -> Tensor:
    """The half that chooses."""
    return logits[0] if logits.dim() == 3 else logits


def _one_hot(index: Tensor, like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.bool).scatter(
        -1, index.to(like.device)[:, None], True
    )
