"""The file of hosts: what it may say, and one clear error for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decent.errors import ConfigError
from decent.experts.remote import connect
from decent.experts.remote.hosts import load
from decent.transport.curve import new_keys
from experts.remote.islands import hosts

HERE = {"number": 0, "address": "tcp://127.0.0.1:5555"}
AWAY = {"number": 0, "address": "tcp://10.0.0.1:5555"}
KEY = new_keys().public


def test_a_whole_file(tmp_path: Path) -> None:
    file = hosts(tmp_path / "h.toml", HERE, AWAY | {"key": KEY}, deadline_s=2.0, hedge_s=0.5)
    found = load(file)
    assert [(host.number, host.key) for host in found.expert] == [(0, None), (0, KEY)]
    assert (found.deadline_s, found.hedge_s, found.key) == (2.0, 0.5, None)


@pytest.mark.parametrize(
    ("tables", "settings", "experts", "why"),
    [
        ([], {}, 1, "missing required field `expert`"),
        ([HERE | {"adress": "x"}], {}, 1, r"unknown field `adress` - at `\$.expert\[0\]`"),
        ([HERE], {"deadline_s": 0}, 1, "deadline_s = 0"),
        ([HERE], {}, 2, "no expert of number 1"),
        ([HERE, HERE | {"number": 4}], {}, 1, r"expert.number = 4: expected 0 … 0"),
        ([HERE, HERE | {"digest": "another"}], {}, 1, "expert 0 has 2 digests"),
        (
            [HERE | {"digest": ""}],
            {},
            1,
            "expert 0 has 0 digests: expected .* expert_0/config.json",
        ),
        ([HERE | {"key": "abc"}], {}, 1, "the key of tcp://127.0.0.1:5555"),
        ([AWAY], {}, 1, "has no key, and is not on this machine"),
        ([HERE | {"address": "nonsense"}], {}, 1, "has no key, and is not on this machine"),
        ([HERE | {"address": "nonsense", "key": KEY}], {}, 1, "address nonsense: "),
        ([HERE | {"key": KEY}], {"key": "nowhere.key"}, 1, "nowhere.key: No such file"),
    ],
)
def test_what_cannot_be_used(
    tmp_path: Path, tables: list[dict[str, Any]], settings: dict[str, Any], experts: int, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        connect(hosts(tmp_path / "h.toml", *tables, **settings), experts)
