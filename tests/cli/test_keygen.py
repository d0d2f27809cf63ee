"""`decent keygen`, and how the command line lets go of encryption: only where it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import Engine, decent, process
from decent import keys


def test_a_pair_of_keys(here: Path) -> None:
    done = process("keygen", "-o", "london")
    assert done.returncode == 0, done.stderr
    pair = keys.read(Path("london.key"))
    assert done.stdout == f"{pair.public}\n"
    assert done.stderr == "london.key: keep it to yourself; london.pub: for the topology\n"
    assert pair.secret not in done.stdout + done.stderr + Path("london.pub").read_text()
    assert f'key = "{pair.public}"' in Path("london.pub").read_text()


def test_each_is_another_and_none_is_overwritten(here: Path) -> None:
    assert decent("keygen").stdout != decent("keygen", "-o", "other").stdout
    before = Path("decent.key").read_text()
    done = decent("keygen")
    assert done.exit_code == 2
    assert "decent.key: it exists: expected a new name. Give another -o" in done.stderr
    assert Path("decent.key").read_text() == before
    assert len(list(here.iterdir())) == 4


def test_a_place_where_nothing_can_be_written(here: Path) -> None:
    done = decent("keygen", "-o", "no/where")
    assert done.exit_code == 2
    assert "no/where.key: No such file or directory: expected a place" in done.stderr


def test_insecure_has_to_be_typed(here: Path, engine: Engine) -> None:
    assert decent("launch", "--insecure", "--set", "runtime.host=10.0.0.1").exit_code == 0
    assert engine.config.runtime.insecure
    [run] = (here / "runs").iterdir()
    for line in ([run / "config.toml"], ["--set", "runtime.insecure=true"]):
        done = decent("launch", *line)
        assert done.exit_code == 2
        assert "runtime.insecure = true in the configuration: expected --insecure" in done.stderr
    assert engine.calls == 1
    assert decent("launch", "--insecure", run / "config.toml").exit_code == 0
    assert decent("simulate", run / "config.toml").exit_code == 0  # there is no network


def test_without_it_another_host_is_fine(here: Path, engine: Engine) -> None:
    assert decent("launch", "--set", "runtime.host=10.0.0.1").exit_code == 0
    assert not engine.config.runtime.insecure


def test_both_at_once_are_none(here: Path, engine: Engine) -> None:
    done = decent("launch", "--insecure", "--set", "runtime.encrypt=true")
    assert done.exit_code == 2
    assert "runtime.encrypt and runtime.insecure: expected one of the two at most" in done.stderr


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('key = "tooshort"', "the key of worker a is none: expected a public key, 40 characters"),
        (f'key = "{"A" * 40}"', "worker b has no key: expected a key for all workers or none"),
    ],
)
def test_a_topology_with_bad_keys(lines: str, words: str, here: Path) -> None:
    Path("net.toml").write_text(
        f'[[worker]]\nname = "a"\n{lines}\n[[worker]]\nname = "b"\n[[edge]]\nbetween = ["a", "b"]\n'
    )
    done = decent("topology", "show", "net.toml")
    assert done.exit_code == 2
    assert f"net.toml: {words}" in done.stderr
