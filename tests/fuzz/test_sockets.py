"""Real workers that exchange while strangers throw all they have at their ports: nobody stops, what
they keep does not grow, the exchange goes on, and the books balance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime.nodes import QUICK, Node, ready, settle, until

from decent.folder import read_json, worker_folder
from decent.topology import family
from decent.worker.audit import audit
from decent.worker.books import read
from decent.worker.context import TRACED

from . import mutations

PAIR = family("ring", 2).with_models_per_worker(4.0)
SHARE = mutations.frames_wanted() / mutations.CI
ATTACK_S = min(300.0, 6.0 * SHARE)
WARM_S = 3.0
"""until pools and buffers have the size that they keep"""
GROWTH_MB = 60
"""what pools and buffers may still take: they keep what the most connections at a time have needed;
six seconds are half a million frames"""
VALUES = 20_000
ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])])}
Start = Callable[..., Node]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    nodes: list[Node] = []

    def start(me: int, **more: Any) -> Node:
        vector = np.full(VALUES, float(me), np.float32)
        more = {"limits": replace(QUICK, chunk=4096), "ledger": True} | more
        nodes.append(Node(me, PAIR, vector, tmp_path / "run", **more))
        return nodes[-1]

    yield start
    for node in nodes:
        node.discard()


@pytest.fixture
def attack() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    attackers: list[subprocess.Popen[str]] = []

    def attack(kind: str, address: str, run: str, seconds: float) -> subprocess.Popen[str]:
        seed = str(mutations.seed() + len(attackers))
        command = [sys.executable, "-m", "fuzz.attacker", kind, address, run, seed, str(seconds)]
        attackers.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENV))
        return attackers[-1]

    yield attack
    for each in attackers:
        each.kill()
        each.wait()


def resident_mb(node: Node) -> float:
    pages = int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descriptors(node: Node) -> int:
    return len(os.listdir(f"/proc/{node.process.pid}/fd"))


def exchanges(nodes: list[Node]) -> float:
    return sum(node.board.counters()["completed"] for node in nodes)


def work(nodes: list[Node], seconds: float) -> float:
    """Let them train and exchange for so long; exchanges per second."""
    before, start_s = exchanges(nodes), time.monotonic()
    while time.monotonic() < start_s + seconds:
        for node in nodes:
            node.tick()
            assert node.process.poll() is None, "a communicator has ended"
        time.sleep(0.01)
    return (exchanges(nodes) - before) / seconds


def balanced(nodes: list[Node], folder: Path) -> list[dict[str, Any]]:
    """All is well at the end; their statistics."""
    settle(nodes)
    total = np.sum([node.x for node in nodes], axis=0, dtype=float)
    np.testing.assert_allclose(total, sum(node.me for node in nodes), atol=1e-4)
    stats = [node.close() for node in nodes]
    report = audit(read(folder))
    assert [culprit.what for culprit in report.culprits] == []
    assert report.closed == [node.me for node in nodes]
    return stats


@pytest.mark.timeout(0)
def test_strangers_do_not_disturb_two_workers(start: Start, attack: Any, tmp_path: Path) -> None:
    nodes = [start(0), start(1)]
    ready(nodes)
    quiet = work(nodes, 2.0)
    files = [descriptors(node) for node in nodes]
    attackers = [
        attack(kind, node.address(), "test", WARM_S + ATTACK_S)
        for node in nodes
        for kind in ("frames", "tcp")
    ]
    work(nodes, WARM_S)
    before = [resident_mb(node) for node in nodes]
    disturbed = work(nodes, ATTACK_S)
    after = [resident_mb(node) for node in nodes]
    said = [json.loads(attacker.communicate(timeout=60)[0]) for attacker in attackers]
    until(
        lambda: all(
            descriptors(each) <= count + 4 for each, count in zip(nodes, files, strict=True)
        ),
        "connections that were closed are let go of",
    )
    stats = balanced(nodes, tmp_path / "run")
    refused = sum(each["refused"] for each in stats)
    print(f"\nagainst two workers: {said}, refused {refused:,}")
    print(f"  exchanges per second: {quiet:.0f} before, {disturbed:.0f} meanwhile")
    print(f"  resident, MB: {before} → {after}")
    assert refused > 50 * ATTACK_S
    assert disturbed > 0
    assert all(b - a < GROWTH_MB for a, b in zip(before, after, strict=True))
    assert sum(each["damaged"] + each["abandoned"] for each in stats) == 0
    assert all(len(node.events("refused")) <= TRACED for node in nodes)


@pytest.mark.timeout(0)
def test_wrong_keys_at_full_rate_do_not_disturb_two_workers(
    start: Start, attack: Any, tmp_path: Path
) -> None:
    nodes = [start(me, encrypt=True, shared_memory=False) for me in range(2)]
    ready(nodes)
    quiet = work(nodes, 2.0)
    key = read_json(worker_folder(tmp_path / "run", 0) / "endpoint.json")["key"]
    attackers = [
        attack(kind, nodes[0].address(), key, WARM_S + ATTACK_S / 2) for kind in ("curve", "tcp")
    ]
    work(nodes, WARM_S)
    before = [resident_mb(node) for node in nodes]
    disturbed = work(nodes, ATTACK_S / 2)
    after = [resident_mb(node) for node in nodes]
    said = [json.loads(attacker.communicate(timeout=60)[0]) for attacker in attackers]
    stats = balanced(nodes, tmp_path / "run")
    print(f"\nwrong keys and none: {said}, refused {stats[0]['refused_keys']:,}")
    print(f"  exchanges per second: {quiet:.0f} before, {disturbed:.0f} meanwhile")
    print(f"  resident, MB: {before} → {after}")
    assert stats[0]["refused_keys"] > 10 * ATTACK_S
    assert disturbed > 0
    assert all(b - a < GROWTH_MB for a, b in zip(before, after, strict=True))
    assert stats[0]["refused"] == 0
    assert len(nodes[0].events("refused key")) <= TRACED


@pytest.mark.parametrize(
    "nonsense", [b"{", b'{"address": "tcp://nonsense", "arena": {"pid": "x"}, "key": 7}']
)
def test_a_file_of_nonsense_is_waited_out(start: Start, tmp_path: Path, nonsense: bytes) -> None:
    """It ended the communicator of whoever read it."""
    home = worker_folder(tmp_path / "run", 0)
    home.mkdir(parents=True)
    (home / "endpoint.json").write_bytes(nonsense)
    one = start(1)
    until(lambda: (worker_folder(tmp_path / "run", 1) / "endpoint.json").exists(), "1 has started")
    time.sleep(0.7)  # it has tried to greet worker 0 once more
    assert one.process.poll() is None
    nodes = [start(0), one]
    ready(nodes)
    work(nodes, 0.5)
    balanced(nodes, tmp_path / "run")
