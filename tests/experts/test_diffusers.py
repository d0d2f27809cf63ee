"""Transformers of diffusers as experts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from decent.errors import MissingExtra, ModelError
from decent.experts import store
from decent.experts.networks import build
from decent.experts.networks.diffusers import Diffusers

DIT = {"num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4, "norm_num_groups": 2}
SD3 = {
    "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 4, "joint_attention_dim": 8,
    "caption_projection_dim": 8, "pooled_projection_dim": 8, "pos_embed_max_size": 8,
}  # fmt: skip
MODELS = [("DiTTransformer2DModel", DIT), ("SD3Transformer2DModel", SD3)]


@pytest.mark.parametrize(("model", "config"), MODELS)
def test_it_is_an_expert_that_is_stored_and_read_again(
    model: str, config: dict[str, Any], tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    expert = build("diffusers", (4, 8, 8), classes=3, model=model, config=config).eval()
    with torch.no_grad():
        for parameter in expert.parameters():
            parameter.normal_(0, 0.1)
    x, t = torch.randn(5, 4, 8, 8), torch.rand(5)
    known = torch.tensor([0, 1, 2, -1, 1])
    answer = expert(x, t, known)
    assert answer.shape == x.shape
    torch.testing.assert_close(expert(x[3:4], t[3:4]), answer[3:4], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(expert(x, t), answer)
    record = store.Record(
        network="diffusers", shape=(4, 8, 8), classes=3, options={"model": model, "config": config}
    )
    store.save(tmp_path / "expert_0", expert, record)
    torch.testing.assert_close(store.load(tmp_path / "expert_0")[0](x, t, known), answer)
    expert.save_pretrained(tmp_path / "theirs")
    theirs = getattr(diffusers, model).from_pretrained(tmp_path / "theirs")
    again = Diffusers.of(theirs, classes=3).eval()
    if model.startswith("DiT"):
        torch.testing.assert_close(again(x, t, known), answer)
        direct = theirs(x, timestep=1000 * t, class_labels=known % 4, return_dict=False)[0]
        torch.testing.assert_close(direct, answer)


def test_what_diffusers_does_not_have_is_refused() -> None:
    pytest.importorskip("diffusers")
    with pytest.raises(ModelError, match="no model"):
        build("diffusers", (4, 8, 8), model="Nothing")
    with pytest.raises(ModelError, match="configuration"):
        build("diffusers", (4, 8, 8), config={"nonsense": 1})
    with pytest.raises(ModelError, match="router"):
        build("diffusers", (4, 8, 8), outputs=3)


def test_without_diffusers_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"decent\[diffusers\]"):
        build("diffusers", (4, 8, 8))
