"""Whole runs that encrypt: with keys of their own, and with those that a topology lists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from decent import keys
from decent.errors import ConfigError
from decent.folder import read_json
from decent.keys import is_key
from decent.topology import family, save
from decent.transport.curve import new_keys
from launcher.jobs import Job, config

OPEN = {"steps": 30, "topology__rate": 1.0, "runtime__shared_memory": "false"}
CLOSED = OPEN | {"runtime__encrypt": "true"}


def test_a_run_makes_its_own_keys(job: Job) -> None:
    outcome = job.run(config(3, **CLOSED))
    assert outcome["merged_among"] == [0, 1, 2]
    assert outcome["faults"] == []
    stats = [result["stats"] for result in outcome["results"]]
    assert [each["refused_keys"] for each in stats] == [0, 0, 0]
    assert sum(each["completed"] for each in stats) > 0
    found = {read_json(path)["key"] for path in job.folder.rglob("endpoint.json")}
    assert len(found) == 3
    assert all(map(is_key, found))


def listed(folder: Path) -> list[keys.Keys]:
    """Two workers' keys, public ones in net.toml, secret ones in keys/."""
    pairs = [new_keys() for _ in range(2)]
    (folder / "keys").mkdir()
    for name, pair in zip("ab", pairs, strict=True):
        keys.write(pair, str(folder / "keys" / name))
    graph = replace(family("ring", 2), keys=tuple(pair.public for pair in pairs), names=("a", "b"))
    save(graph, folder / "net.toml")
    return pairs


def test_a_run_takes_the_keys_that_are_listed_and_leaves_none_behind(
    job: Job, tmp_path: Path
) -> None:
    pairs = listed(tmp_path)
    file, place = tmp_path / "net.toml", tmp_path / "keys"
    outcome = job.run(config(2, **CLOSED, topology__file=file, runtime__keys=place))
    assert outcome["merged_among"] == [0, 1]
    published = [read_json(tmp_path / f"run/workers/{i}/endpoint.json")["key"] for i in range(2)]
    assert published == [pair.public for pair in pairs]
    left = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert [pair for pair in pairs if pair.secret.encode() in left] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"topology__file": "net.toml"}, "worker a has a public key, and its secret one is not"),
        ({"runtime__keys": "keys"}, "the topology lists no public keys"),
        ({"topology__file": "net.toml", "runtime__keys": "keys/b.key"}, "no secret key there"),
    ],
)
def test_keys_that_do_not_fit_are_refused_before_anything_starts(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    listed(tmp_path)
    with pytest.raises(ConfigError, match=words):
        job.run(config(2, **CLOSED, **settings))
    assert job.seen == []
    assert not (tmp_path / "run").exists()
