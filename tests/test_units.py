"""Rates as people write them."""

from __future__ import annotations

import pytest

from decent.config import from_dict, load
from decent.errors import ConfigError
from decent.units import rate


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20Mbit", 2.5e6), ("20 Mbit/s", 2.5e6), ("20Mbitps", 2.5e6), ("2.5MB", 2.5e6),
        ("1GB/s", 1e9), ("512KiB", 524288), ("300 bit", 37.5), (".5kB", 500), (" 1Gibit ", 2**27),
    ],
)  # fmt: skip
def test_rates(text: str, value: float) -> None:
    assert rate("x", text) == value


@pytest.mark.parametrize(
    "text", ["", "20", "20Mb", "Mbit", "-3MB", "0MB", "nanMB", "1e3MB", "20 mbit", "2MBit", "fast"]
)
def test_nonsense_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r'exchange.bandwidth = .*such as "20Mbit" or "2.5MB"'):
        from_dict({"exchange": {"bandwidth": text}})


def test_it_is_a_bare_word_on_the_command_line() -> None:
    assert load("digits", ["exchange.bandwidth=20Mbit"]).exchange.bandwidth == "20Mbit"


def test_where_nothing_is_sent_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="bandwidth = 1MB: expected"):
        from_dict({"exchange": {"bandwidth": "1MB"}, "simulation": {"fidelity": "ideal"}})
