"""Help comes at once: no command's help imports what only running it needs."""

from __future__ import annotations

import time

import pytest

from cli.conftest import process

HEAVY = {"torch", "sklearn", "zmq", "networkx", "numpy", "rich", "msgspec"}
COMMANDS = ([], ["launch"], ["simulate"], ["topology"], ["topology", "show"], ["merge"], ["tasks"],
            ["serve"])  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    done = process(*command, "--help", options=("-X", "importtime"))
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: decent")
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in imported
    assert not imported & HEAVY


def test_help_is_fast() -> None:
    def took_s() -> float:
        start = time.perf_counter()
        process("--help")
        return time.perf_counter() - start

    assert min(took_s() for _ in range(5)) < 1.0


def test_version() -> None:
    assert process("--version").stdout == "decent, version 0.1.0\n"


def test_the_commands_are_listed() -> None:
    text = process("-h").stdout
    for name in ("launch", "simulate", "topology", "merge", "tasks"):
        assert f"  {name} " in text
