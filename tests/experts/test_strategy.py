"""Strategies: rows sum to 1, truncations keep what they say, draws have the right shares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from decent.errors import ConfigError, RuntimeFault
from decent.experts.draw import Draw
from decent.experts.strategy import renormalised, strategy

ROUTED = [
    "full", "top_k:1", "top_k:2", "nucleus:0.9", "nucleus:0", "threshold:0.1", "threshold:1",
    "sample:3", "full@0.7, top_k:1", "nucleus:0.9@0.5, sample:2@0.2, threshold:0.1",
]  # fmt: skip
numbers = arrays("float32", (6, 5), elements=st.floats(-1000, 1000, width=32))
times = torch.tensor([1.0, 0.8, 0.7, 0.5, 0.2, 0.0])


def weights(text: str, logits: Tensor, labels: Tensor | None = None) -> Tensor:
    count = logits.shape[-2]
    return strategy(text)(logits, times[:count], Draw.of(0, range(count), labels))


@given(numbers, st.sampled_from([*ROUTED, "ancestral"]), st.booleans(), st.booleans())
def test_rows_are_shares_and_a_lost_expert_has_none(array, text, lost, halves) -> None:
    logits = torch.from_numpy(array)
    logits = torch.stack([logits, -logits]) if halves else logits
    if lost:
        logits = logits.index_fill(-1, torch.tensor([2]), -torch.inf)
    w = weights(text, logits)
    assert w.shape == logits.shape
    assert w.dtype == torch.float32
    assert (w >= 0).all()
    assert torch.allclose(w.sum(-1), torch.ones(()))
    assert not lost or (w[..., 2] == 0).all()


@given(numbers, st.sampled_from(ROUTED[:7]))
def test_a_truncation_is_the_softmax_over_what_it_keeps(array, text) -> None:
    logits = torch.from_numpy(array).double()
    w = weights(text, logits)
    p = logits.softmax(-1) * (w > 0)
    assert w.dtype == torch.float64
    assert torch.allclose(w, p / p.sum(-1, keepdim=True))


@given(numbers)
def test_both_halves_of_guidance_use_the_same_experts(array) -> None:
    logits = torch.from_numpy(array).double() / 100
    both = torch.stack([logits, -logits])
    for text in (*ROUTED, "ancestral"):
        conditional, free = weights(text, both)
        assert ((conditional > 0) == (free > 0)).all()
        assert torch.allclose(free, renormalised(-logits, conditional > 0))


def test_full_keeps_what_only_the_unconditional_half_needs() -> None:
    both = torch.tensor([[[0.0, -5000.0]], [[0.0, 0.0]]])
    assert weights("full", both)[1].tolist() == [[0.5, 0.5]]


P = torch.tensor([[0.5, 0.3, 0.15, 0.05]])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("full", 4), ("top_k:1", 1), ("top_k:3", 3), ("top_k:9", 4),
        ("nucleus:0.5", 1), ("nucleus:0.51", 2), ("nucleus:0.9", 3), ("nucleus:1", 4),
        ("threshold:0.1", 3), ("threshold:0.4", 1), ("threshold:0.9", 1),
    ],
)  # fmt: skip
def test_how_many_are_kept(text: str, kept: int) -> None:
    assert (weights(text, P.log()) > 0).sum() == kept


def test_kept_logits_that_all_underflow_still_give_weights() -> None:
    logits = torch.tensor([[0.0, -3000.0, -3001.0]])
    w = renormalised(logits, torch.tensor([[False, True, True]]))
    assert torch.allclose(w, torch.tensor([[0, 0.7311, 0.2689]]), atol=1e-4)


def test_half_precision_is_weighed_in_single() -> None:
    assert weights("full", P.log().half()).dtype == torch.float32


@pytest.mark.parametrize("text", ["sample:1", "sample:4", "ancestral"])
def test_draws_are_unbiased(text: str) -> None:
    count = 4000
    draw = Draw.of(0, range(count))
    w = strategy(text)(P.log().expand(count, -1), torch.ones(count), draw)
    assert torch.allclose(w.mean(0), P[0], atol=0.03)


def test_ancestral_keeps_its_cluster_and_a_trajectory_its_draws() -> None:
    draw, ancestral = Draw.of(7, range(100)), strategy("ancestral")
    first = ancestral(torch.zeros(100, 4), torch.ones(100), draw)
    again = ancestral(torch.randn(100, 4), torch.zeros(100), draw)
    assert (first == again).all()
    alone = ancestral(torch.zeros(50, 4), torch.ones(50), Draw.of(7, range(50, 100)))
    assert (first[50:] == alone).all()


def test_the_oracle_knows_the_clusters_or_says_what_it_lacks() -> None:
    logits, labels = torch.zeros(3, 4), torch.tensor([2, 0, 3])
    assert weights("oracle", logits, labels).argmax(-1).tolist() == [2, 0, 3]
    with pytest.raises(ConfigError, match="clusters="):
        weights("oracle", logits)
    with pytest.raises(RuntimeFault, match="lost"):
        weights("oracle", logits.index_fill(-1, torch.tensor([0]), -torch.inf), labels)


def test_a_choice_by_time() -> None:
    active = (weights("full@0.7, top_k:2@0.2, top_k:1", P.log().expand(6, -1)) > 0).sum(-1)
    assert active.tolist() == [4, 4, 2, 2, 1, 1]


@pytest.mark.parametrize("text", [*ROUTED, "ancestral", "oracle", "sample:1@0.25, ancestral"])
def test_it_reads_what_it_writes(text: str) -> None:
    written = str(strategy(text))
    assert str(strategy(written)) == written
    assert strategy(strategy(text)) is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "best", "top_k", "top_k:0", "top_k:1.5", "nucleus:2", "nucleus:x", "full:1", "full@0.5",
        "full@2, top_k:1", "full, top_k:1", "full@0.2, top_k:1@0.7, full", "threshold:nan",
    ],
)  # fmt: skip
def test_what_is_no_strategy(text: str) -> None:
    with pytest.raises(ConfigError):
        strategy(text)
