from __future__ import annotations

import pytest
import torch

from decent.bench.experts import bench_experts
from decent.errors import ConfigError


def test_its_ratios_are_those_of_its_times() -> None:
    threads = torch.get_num_threads()
    try:
        figures = bench_experts("mlp", width=8, batch=16, rounds=2, threads=1)
    finally:
        torch.set_num_threads(threads)
    assert set(figures["ms"]) == {"dense", "top_1", "eight", "full"}
    assert figures["top 1 over dense"] == figures["ms"]["top_1"] / figures["ms"]["dense"]
    assert figures["asked"] == {"top_1": "together", "full": "together"}


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ConfigError, match="--rounds 0: expected 1 or more"):
        bench_experts("mlp", width=8, batch=16, rounds=0, threads=1)
