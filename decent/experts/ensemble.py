"""Many experts as one model: u(x, t, c) = Σ_k w_k(x, t, c) u_k(x, t, c).

w = p(k | x_t, t, c), or what a strategy leaves of it, comes from the router; every expert answers
for the rows that have a weight for it, in one call, and is not called when there are none. Experts
that offer `submit` are all asked before the first answer is awaited; small ones of one architecture
are asked at once (`together`).

An expert that is lost (`ExpertLost`) is masked in the logits and the step is done over: what is
left is exactly the flow of the remaining data. That is exact for states that could still become
anything; a row that had committed to the lost expert (probability above 1/2, or the cluster it
keeps) is noted in its `Draw`, and `sampling.sample` starts such rows again.
McAllister et al., arXiv 2501.05450.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from decent.errors import ConfigError, ExpertLost, ModelError, RuntimeFault
from decent.experts import strategy as strategies
from decent.experts.draw import Draw
from decent.experts.path import spread
from decent.experts.prediction import Model
from decent.experts.strategy import START, Strategy, probabilities
from decent.experts.together import together

Rows = Tensor | slice
Answer = tuple[Rows, Tensor | int, Tensor]
"""rows [M], the expert of each or of all, and their velocities [M, *S]"""


class Ensemble(nn.Module):
    """Experts behind one model's signature: (x [N, *S], t [N], condition) → velocity [N, *S].

    `router` gives logits [N, K]; without one the strategy must do with `pi` [K], the shares of
    the clusters. `floor` is the least live weight of a row once experts are lost. Raises
    ConfigError where router, `pi` and strategy do not go together.
    """

    def __init__(
        self,
        experts: Sequence[Model],
        router: Model | None,
        pi: Sequence[float] | None = None,
        strategy: str | Strategy = "nucleus:0.9",
        floor: float = 0.05,
    ) -> None:
        super().__init__()
        self.experts, self.router, self.floor = list(experts), router, floor
        self._registered = nn.ModuleList(each for each in experts if isinstance(each, nn.Module))
        self._together = together(self.experts)
        self.strategy = strategies.strategy(strategy)
        self.log_pi = None if pi is None else torch.tensor(pi, dtype=torch.float64).log()
        self.lost: dict[int, str] = {}
        """when and why each expert was lost"""
        self.rows = self.asked = 0
        """rows answered so far, and rows that experts were asked"""
        self._draw: Draw | None = None
        self._check(None if pi is None else len(pi))

    @property
    def active(self) -> float:
        """Experts per row, on average so far."""
        return self.asked / max(self.rows, 1)

    @contextmanager
    def following(self, draw: Draw) -> Iterator[None]:
        """Calls inside belong to the trajectories of `draw`, row for row."""
        self._draw = draw
        try:
            yield
        finally:
            self._draw = None

    def forward(
        self, x: Tensor, t: Tensor, condition: Tensor | None = None, halves: bool = False
    ) -> Tensor:
        """The velocity; with `halves`, rows N/2 and up are the unconditional half of guidance and
        use the experts that the first half chose.

        Raises RuntimeFault when too little live weight is left or an answer is not finite,
        ModelError for an answer of another shape or a router of another K.
        """
        draw = self._draw_for(x, halves)
        logits, prior = self._logits(x, t, condition, draw, halves)
        while True:
            weights = self._weigh(logits, t, draw, halves)
            answers, lost = self._ask(x, t, condition, weights)
            if not lost:
                break
            self._lose(lost, logits[: len(draw.rows)], t, draw, prior)
        self.rows += len(x)
        return _mixed(x, weights, answers)

    def weights(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """[N, K], rows summing to 1."""
        draw = self._draw_for(x, False)
        logits, _ = self._logits(x, t, condition, draw, False)
        return self._weigh(logits, t, draw, False)

    def _check(self, shares: int | None) -> None:
        count = len(self.experts)
        if count == 0:
            raise ConfigError("an ensemble of no experts", "one or more")
        if shares not in (None, count):
            raise ConfigError(f"{shares} shares π for {count} experts", "one for each expert")
        if self.router is None and (self.log_pi is None or self.strategy.routed):
            raise ConfigError(
                "an ensemble without a router",
                "the shares π and a strategy that needs no router",
                "use ancestral, or train a router",
            )

    def _draw_for(self, x: Tensor, halves: bool) -> Draw:
        """That of the trajectories followed; outside of any, a new one for each call."""
        return self._draw or Draw.of(self.rows, range(len(x) // (1 + halves)))

    def _logits(
        self, x: Tensor, t: Tensor, condition: Tensor | None, draw: Draw, halves: bool
    ) -> tuple[Tensor, bool]:
        """Logits [N, K] with no expert masked, and whether they are just log π."""
        first = t[: len(draw.rows)]
        prior = self.strategy.prior(first, draw, condition is not None)
        if self.router is None or (prior and self.log_pi is not None):
            assert self.log_pi is not None
            return self.log_pi.to(x.device).expand(len(x), -1), True
        logits = self.router(x, t, condition)
        if logits.shape != (len(x), len(self.experts)):
            raise ModelError(
                f"a router that answers {tuple(logits.shape)}",
                f"logits {(len(x), len(self.experts))}: one for each expert",
                "train the router on this partition",
            )
        if logits.isnan().any():
            raise RuntimeFault("the router's logits are not numbers; train it again")
        return logits, False

    def _weigh(self, logits: Tensor, t: Tensor, draw: Draw, halves: bool) -> Tensor:
        """[N, K] by the strategy, lost experts masked."""
        count = len(draw.rows)
        if self.lost:
            self._check_live(logits[:count], t[:count])
            lost = torch.tensor(list(self.lost), device=logits.device)
            logits = logits.index_fill(-1, lost, -torch.inf)
        if halves:
            logits = logits.reshape(2, count, -1)
        return self.strategy(logits, t[:count], draw).reshape(-1, logits.shape[-1])

    def _check_live(self, logits: Tensor, t: Tensor) -> None:
        """Enough weight is left: in trajectories, for each row at its start, where p(k | x_1, 1, c)
        are the shares of what it can become; elsewhere for each row."""
        live = [k for k in range(len(self.experts)) if k not in self.lost]
        left = probabilities(logits)[:, live].sum(-1)
        if self._draw is not None:
            left = left[t >= START]
        if not live or (left < self.floor).any():
            least = f"{left.min().item():.3g}" if len(left) else "0"
            reasons = "; ".join(f"expert {k}, {why}" for k, why in self.lost.items())
            raise RuntimeFault(
                f"live experts hold {least if live else 0} of a sample's weight, fewer than the "
                f"floor of {self.floor:g}. Lost: {reasons}"
            )

    def _ask(
        self, x: Tensor, t: Tensor, condition: Tensor | None, weights: Tensor
    ) -> tuple[list[Answer], dict[int, ExpertLost]]:
        """The answers of the experts with work; and the experts lost."""
        experts, rows = weights.mT.nonzero().unbind(1)  # sorted by expert
        counts = experts.bincount(minlength=len(self.experts)).tolist()
        if self._together is None or not self._together.pays(len(rows)):
            return self._ask_each(x, t, condition, rows.split_with_sizes(counts))
        self.asked += len(rows)
        return [(rows, experts, self._together(counts, *_share(rows, x, t, condition)))], {}

    def _ask_each(
        self, x: Tensor, t: Tensor, condition: Tensor | None, parts: Sequence[Tensor]
    ) -> tuple[list[Answer], dict[int, ExpertLost]]:
        """By a call of each expert for its part of the rows."""
        calls: dict[int, Callable[[], Tensor]] = {}
        rows = {k: _all_of(part, len(x)) for k, part in enumerate(parts) if len(part)}
        answers, lost = {}, dict[int, ExpertLost]()
        for k, own in rows.items():
            with _noting(k, lost):
                calls[k] = _started(self.experts[k], *_share(own, x, t, condition))
        for k in sorted(calls, key=lambda k: hasattr(self.experts[k], "submit")):
            with _noting(k, lost):
                answers[k] = _checked(k, calls[k](), (len(parts[k]), *x.shape[1:]))
                self.asked += len(parts[k])
        return [(rows[k], k, answers[k]) for k in sorted(answers)], lost

    def _lose(
        self, lost: dict[int, ExpertLost], logits: Tensor, t: Tensor, draw: Draw, prior: bool
    ) -> None:
        for k, error in lost.items():
            self.lost[k] = f"at t = {t.max().item():.3f}: {error}"
        committed = torch.isin(draw.kept(), torch.tensor(list(lost)))
        if not prior:
            committed |= (probabilities(logits)[:, list(lost)].sum(-1) > 0.5).cpu()
        draw.commit(committed)


def ensemble_in(model: Model) -> Ensemble | None:
    """The ensemble that `model` is or has inside."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    return next((each for each in modules if isinstance(each, Ensemble)), None)


def _mixed(x: Tensor, weights: Tensor, answers: list[Answer]) -> Tensor:
    """Σ_k w_k u_k, summed in the order of the experts."""
    mixed = torch.zeros_like(x)
    for rows, experts, answer in answers:
        own = spread(weights[rows, experts], x)
        if isinstance(rows, slice):
            mixed.addcmul_(own, answer.to(x))
        else:
            mixed.index_add_(0, rows, own * answer.to(x))
    if not (mixed.sum().isfinite() or mixed.isfinite().all()):  # the sum is quicker
        wild = ", ".join(map(str, sorted(_wild(answers))))
        raise RuntimeFault(f"velocities of expert {wild} are not finite; train it again")
    return mixed


def _wild(answers: list[Answer]) -> set[int]:
    """The experts whose answers are not finite."""
    finite = [(experts, each.flatten(1).isfinite().all(1)) for _, experts, each in answers]
    return {k for experts, each in finite for k in torch.where(each, -1, experts).tolist()} - {-1}


def _all_of(rows: Tensor, count: int) -> Rows:
    """`rows`, without gathering where they are all."""
    return slice(None) if len(rows) == count else rows


def _share(
    rows: Rows, x: Tensor, t: Tensor, condition: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return x[rows], t[rows], None if condition is None else condition[rows]


def _started(expert: Model, *share: Tensor | None) -> Callable[[], Tensor]:
    """What gives the expert's answer; a remote one is at work on it from here."""
    submit = getattr(expert, "submit", None)
    return submit(*share).result if submit else partial(expert, *share)


def _checked(k: int, answer: Tensor, shape: tuple[int, ...]) -> Tensor:
    if answer.shape != shape:
        raise ModelError(
            f"expert {k} answers {tuple(answer.shape)} to {shape}",
            "a velocity of the data's shape",
            "all experts must be trained on data of one shape",
        )
    return answer


@contextmanager
def _noting(k: int, lost: dict[int, ExpertLost]) -> Iterator[None]:
    try:
        yield
    except ExpertLost as error:
        lost[k] = error
