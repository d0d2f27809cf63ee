"""Experiments on decentralized diffusion at the size of a minute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from decent.learning.fashion_mnist import DEBIAN
from decent.reproduce import experiment, flows, reproduce


def test_a_constant_router_is_its_shares() -> None:
    logits = flows.Constant((0.25, 0.75))(torch.zeros(3, 2), torch.ones(3), None)
    assert torch.allclose(logits.softmax(1), torch.tensor([0.25, 0.75]).expand(3, 2))


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs dataset-fashion-mnist")
def test_experts_beat_dense_at_equal_flops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = reproduce(experiment.find("ddm-flop-for-flop"), fast=True, out=tmp_path / "out")
    assert outcome.ok, outcome.verdicts
