"""Optimizers of many workers at once take the very steps of torch.optim, worker by worker."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from decent.errors import ConfigError
from decent.learning.local import local_optimizer

N, SIZE = 4, 3
lr = st.sampled_from([0.01, 0.3])
decay = st.sampled_from([0.0, 0.1])


@st.composite
def rules(draw: st.DrawFn) -> tuple[type[Optimizer], dict[str, Any]]:
    """A class of torch.optim and options for it."""
    kind = draw(st.sampled_from([SGD, Adam, AdamW]))
    options: dict[str, Any] = {"lr": draw(lr), "weight_decay": draw(decay)}
    if kind is SGD:
        options["momentum"] = draw(st.sampled_from([0.0, 0.5, 0.9]))
        options["nesterov"] = options["momentum"] > 0 and draw(st.booleans())
    else:
        options["betas"] = draw(st.sampled_from([(0.9, 0.999), (0.5, 0.7), (0.0, 0.9)]))
        options["eps"] = draw(st.sampled_from([1e-8, 1e-2]))
    if kind is Adam and "decoupled_weight_decay" in inspect.signature(Adam).parameters:
        options["decoupled_weight_decay"] = draw(st.booleans())
    return kind, options


SUBSETS = st.lists(st.sets(st.integers(0, N - 1), min_size=1), min_size=1, max_size=12)


@settings(max_examples=80)
@given(rules(), SUBSETS, st.integers(0, 9), st.booleans(), st.booleans())
def test_steps_are_those_of_torch(
    rule: tuple[type[Optimizer], dict[str, Any]],
    turns: list[set[int]],
    seed: int,
    moved_elsewhere: bool,
    by_displacement: bool,
) -> None:
    """In any order of workers, also where exchanges move the parameters in between."""
    kind, options = rule
    random = torch.Generator().manual_seed(seed)
    points = torch.randn(N, SIZE, dtype=torch.float64, generator=random)
    own = [torch.nn.Parameter(row.clone()) for row in points]
    theirs = [kind([row], **options) for row in own]
    ours = local_optimizer(theirs[0], N, points)
    for turn in turns:
        workers = torch.tensor(sorted(turn, reverse=bool(seed % 2)))
        gradients = torch.randn(len(workers), SIZE, dtype=torch.float64, generator=random)
        for worker, gradient in zip(workers.tolist(), gradients, strict=True):
            own[worker].grad = gradient.clone()
            theirs[worker].step()
        rows = points[workers]
        if by_displacement:
            rows += ours.displacement(gradients, workers, rows)
        else:
            ours.step(rows, gradients, workers)
        points[workers] = rows
        expected = torch.stack([row.detach() for row in own])
        np.testing.assert_allclose(points, expected, rtol=1e-10, atol=1e-12)
        if moved_elsewhere:
            points += 0.1
            for row in own:
                row.data += 0.1


@pytest.mark.parametrize(
    ("kind", "options"),
    [(SGD, {"lr": 0.1, "momentum": 0.9}), (Adam, {"lr": 0.01}), (AdamW, {"lr": 0.01})],
)
def test_single_precision_stays_single(kind: type[Optimizer], options: dict[str, Any]) -> None:
    points = torch.randn(N, SIZE, generator=torch.Generator().manual_seed(0))
    parameter = torch.nn.Parameter(points[1].clone())
    theirs = kind([parameter], **options)
    ours = local_optimizer(theirs, N, points)
    for k in range(20):
        gradient = torch.full((1, SIZE), float(k % 5) - 1.5)
        parameter.grad = gradient[0].clone()
        theirs.step()
        rows = points[1:2]
        ours.step(rows, gradient, torch.tensor([1]))
        assert rows.dtype == torch.float32
        np.testing.assert_allclose(rows[0], parameter.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [SGD, Adam])
def test_state_is_live_and_all_there_is(kind: type[Optimizer]) -> None:
    """Copied into another optimizer of the same rule, it makes that one go on alike."""

    def fresh() -> Any:
        options = {"momentum": 0.9} if kind is SGD else {}
        return local_optimizer(
            kind([torch.zeros(SIZE)], lr=0.1, **options), N, torch.zeros(N, SIZE)
        )

    first, second, workers = fresh(), fresh(), torch.tensor([2, 0])

    def step(optimizer: Any, scale: float) -> Tensor:
        rows = torch.ones(2, SIZE)
        optimizer.step(rows, scale * torch.ones(2, SIZE), workers)
        return rows

    for scale in (1.0, -2.0, 3.0):
        step(first, scale)
    assert not torch.equal(step(fresh(), 1.0), step(first, 1.0))
    for name, live in second.state().items():
        live.copy_(first.state()[name])
    assert torch.equal(step(first, 0.5), step(second, 0.5))
    for name, live in second.state().items():
        assert torch.equal(live, first.state()[name])
        assert not live[1].any()  # worker 1 never took part
    assert local_optimizer(SGD([torch.zeros(1)], lr=1.0), N, torch.zeros(N, 1)).state() == {}


def one() -> list[Tensor]:
    return [torch.zeros(SIZE, requires_grad=True)]


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (RMSprop(one()), "optimizer RMSprop: expected SGD, Adam or AdamW"),
        (Adam(one(), amsgrad=True), "Adam with amsgrad = True"),
        (AdamW(one(), maximize=True), "AdamW with maximize = True"),
        (SGD(one(), lr=0.1, momentum=0.9, dampening=0.5), "SGD with dampening = 0.5"),
        (SGD([{"params": one()}, {"params": one()}], lr=0.1), "2 parameter groups"),
        (type("Mine", (SGD,), {})(one(), lr=0.1), "optimizer Mine"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Optimizer) else "",
)
def test_others_are_refused_in_words(optimizer: Optimizer, words: str) -> None:
    with pytest.raises(ConfigError, match=f'{words}.*simulation.fidelity = "network"'):
        local_optimizer(optimizer, N, torch.zeros(N, SIZE))
