"""The soak in short: that it measures what it says, not what comes of it."""

from __future__ import annotations

import pytest

from decent.bench import bench_soak
from decent.errors import ConfigError


def test_six_seconds_of_it() -> None:
    notes: list[str] = []
    figures = bench_soak(0.1, params=100_000, codec="bf16", on_sample=notes.append)
    early, end, grown = figures["early"], figures["end"], figures["difference"]
    assert 2.0 < early["at_s"] < end["at_s"] < 8.0
    assert end["exchanges"] > early["exchanges"] > 0
    assert len(notes) == 1
    for me in range(2):
        for kind in ("training", "communicator"):
            process = end[f"{kind}_{me}"]
            assert process["rss_mb"] > 10
            assert 0 < process["pss_mb"] <= process["rss_mb"]
            assert process["open_files"] > 3
            assert abs(grown[f"{kind}_{me}"]["open_files"]) < 5
        assert end[f"trace_{me}_mb"] > early[f"trace_{me}_mb"] > 0
        assert end[f"ledger_{me}_mb"] > 0
    assert grown["at_s"] == end["at_s"] - early["at_s"]


def test_a_soak_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 0 minutes"):
        bench_soak(0.0)
