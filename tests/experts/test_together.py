"""Experts asked at once: the same as each by itself, whatever the rows, and never for others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from decent.errors import RuntimeFault
from decent.experts.ensemble import Ensemble
from decent.experts.networks import build
from decent.experts.networks.mlp import MLP
from decent.experts.prediction import AsVelocity, Prediction
from decent.experts.together import MOST, together

SHAPE = (2, 3)


def experts(count: int, classes: int = 0, **options: int) -> list[nn.Module]:
    torch.manual_seed(count)
    made = [build("mlp", SHAPE, classes, **{"width": 8, **options}) for _ in range(count)]
    for parameter in nn.ModuleList(made).parameters():
        nn.init.normal_(parameter, std=0.3)
    return made


def one_by_one(models: Sequence[nn.Module]) -> list[partial[Tensor]]:
    """The same experts, none of them known to be an MLP."""
    return [partial(each) for each in models]


def inputs(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(rows, *SHAPE), torch.rand(rows), torch.randint(-1, 4, (rows,))


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any),
    st.sampled_from([0, 4]),
    st.booleans(),
)
def test_each_answers_for_its_own_rows(counts: list[int], classes: int, told: bool) -> None:
    models = experts(len(counts), classes)
    x, t, labels = inputs(sum(counts))
    condition = labels if told and classes else None
    parts = zip(models, x.split(counts), t.split(counts), labels.split(counts), strict=True)
    each = [model(*own, label if condition is not None else None) for model, *own, label in parts]
    torch.testing.assert_close(together(models)(counts, x, t, condition), torch.cat(each))


@given(
    st.integers(1, 6), st.integers(1, 9), st.booleans(),
    st.sampled_from(["full", "top_k:1", "nucleus:0.7", "threshold:0.2", "sample:2", "ancestral"]),
)  # fmt: skip
def test_an_ensemble_is_the_same_either_way(
    count: int, rows: int, halves: bool, strategy: str
) -> None:
    models, logits = experts(count, classes=4), 3 * torch.randn(rows * (1 + halves), count)
    x, t, condition = inputs(rows * (1 + halves))
    answers = []
    for kind in (models, one_by_one(models)):
        ensemble = Ensemble(kind, lambda *_: logits, [1 / count] * count, strategy)
        answers.append((ensemble(x, t, condition, halves=halves), ensemble.active))
    torch.testing.assert_close(*(answer for answer, _ in answers))
    assert answers[0][1] == answers[1][1]


def test_experts_that_change_are_followed_and_have_their_gradients() -> None:
    models = experts(3)
    ensemble = Ensemble(models, lambda x, *_: torch.zeros(len(x), 3), strategy="full")
    x, t, _ = inputs(4)
    before = ensemble(x, t)
    models[1].load_state_dict(experts(4)[3].state_dict(), assign=True)
    ensemble.double()
    after = ensemble(x.double(), t.double())
    assert not torch.allclose(after, before.double())
    torch.testing.assert_close(after, sum(each(x.double(), t.double()) for each in models) / 3)
    after.sum().backward()
    assert all(each.grad is not None for each in ensemble.parameters())


def test_nothing_is_stored_twice() -> None:
    models = experts(3)
    assert together(models) is not None
    ensemble = Ensemble(models, None, [0.5, 0.3, 0.2], "ancestral")
    assert list(ensemble.state_dict()) == [
        f"_registered.{k}.{name}" for k, each in enumerate(models) for name in each.state_dict()
    ]


class Doubled(MLP):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return 2 * super().forward(x, t, condition)


def test_only_what_is_known_to_be_alike_is_joined() -> None:
    first, second = experts(2)
    normed = experts(2)[1]
    nn.utils.parametrizations.weight_norm(normed.enter)
    others = [
        experts(1, width=9)[0], experts(1, depth=3)[0], experts(1, classes=4)[0], normed,
        Doubled(SHAPE, width=8), AsVelocity(second, Prediction("noise")), partial(second),
        build("dit", (1, 4, 4), width=8),
    ]  # fmt: skip
    assert together([first, second]) is not None
    assert [together([first, each]) for each in others] == [None] * len(others)


def test_it_pays_for_few_rows_of_a_narrow_network() -> None:
    joint = together(experts(2, width=16))
    most = MOST // 16
    assert [joint.pays(rows) for rows in (0, 1, most, most + 1)] == [False, True, True, False]


def test_the_expert_that_is_not_finite_is_named() -> None:
    models = experts(4)
    nn.init.constant_(models[2].leave.bias, torch.nan)
    ensemble = Ensemble(models, lambda x, *_: torch.zeros(len(x), 4), strategy="full")
    with pytest.raises(RuntimeFault, match="velocities of expert 2 are not finite"):
        ensemble(*inputs(3)[:2])
