"""The shared memory and the turns on it, between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from decent.runtime.board import Board
from decent.runtime.gate import ChunkGate, OptimizerGate

PATIENCE_S = 60
PRELUDE = """
import sys, time
from decent.runtime.board import Board
from decent.runtime.gate import ChunkGate, OptimizerGate
board = Board(1, 4, "float64", int(sys.argv[1]))
count = board.state[0]
def say(word):
    print(word, flush=True)
"""
BUMP = """
def bump(slot=0):
    seen = count[slot]
    for _ in range(20): pass     # time for another to come between
    count[slot] = seen + 1
"""


@contextmanager
def other(board: Board, code: str) -> Iterator[subprocess.Popen[str]]:
    """Another process with the same memory; killed at the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + BUMP + code, str(board.fd)],
        pass_fds=(board.fd,), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        with process:
            yield process
            process.wait(PATIENCE_S)
    finally:
        process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def bump(board: Board) -> None:
    seen = board.state[0, 0]
    for _ in range(20):
        pass
    board.state[0, 0] = seen + 1


def test_memory_is_shared_through_its_descriptor() -> None:
    board = Board(2, 1000, "float32")
    board.state[:] = np.arange(2000).reshape(2, 1000)
    code = """
board = Board(2, 1000, "float32", int(sys.argv[1]))
assert board.state[1, 7] == 1007 and board.steps == 3 and board.stepped_s == 2.5
board.state[1, 7] = -1
board.residual[:] = 0.5, 0.25
board.wake_step = 5.2
from decent.runtime.board import COUNTERS
board.publish({name: k if name != "skipped" else {"a": 1, "b": 2}
               for k, name in enumerate(COUNTERS)})
board.fail()
"""
    woken = [board.tick(at_s) for at_s in (0.5, 1.5, 2.5)]
    assert woken == [True, True, True]  # nobody has said until when not to
    with other(board, code) as process:
        pass
    assert process.returncode == 0
    assert board.state[1, 7] == -1
    assert board.residual.tolist() == [0.5, 0.25]
    assert board.failed
    assert board.counters()["skipped"] == 3
    assert board.counters()["completed"] == 1
    assert [board.tick(3.0) for _ in range(3)] == [False, False, True]


def test_measured_steps_stand_beside_the_state() -> None:
    board = Board(1, 3, "float32", accounts=600)
    board.state[:], board.stepped[:] = 7.0, np.arange(1200.0).reshape(600, 2)
    code = """
board = Board(1, 3, "float32", int(sys.argv[1]), 600)
assert board.state.tolist() == [[7, 7, 7]] and board.stepped[599].tolist() == [1198, 1199]
"""
    with other(board, code) as process:
        pass
    assert process.returncode == 0
    assert Board(1, 3, "float32").stepped.shape == (0, 2)


def test_no_wish_to_be_woken() -> None:
    board = Board(1, 1, "float64")
    board.wake_step = float("inf")
    assert not board.tick(0.0)
    assert board.wake_step > 2**61


def test_memory_goes_with_its_last_holder() -> None:
    board = Board(1, 4, "float64")
    with other(board, "say('here'); time.sleep(600)") as process:
        assert heard(process) == "here"
        process.send_signal(signal.SIGKILL)
    board.state[0, 0] = 3.0  # ours is still there
    assert os.fstat(board.fd).st_nlink == 0  # and has no name that could be left behind


@pytest.mark.parametrize("gates", ["chunk and optimizer", "optimizer and chunk"])
def test_turns_exclude_each_other(gates: str) -> None:
    turns = 3000
    board = Board(1, 4, "float64")
    optimizer = f"""
gate = OptimizerGate(board.fd)
say('ready'); sys.stdin.readline()
for _ in range({turns}):
    gate.enter(); bump(); gate.leave()
"""
    chunk = f"""
gate = ChunkGate(board.fd)
say('ready'); sys.stdin.readline()
for _ in range({turns}):
    with gate:
        bump()
"""
    ours_is_chunk = gates.startswith("chunk")
    with other(board, optimizer if ours_is_chunk else chunk) as process:
        assert heard(process) == "ready"
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        if ours_is_chunk:
            gate = ChunkGate(board.fd)
            for _ in range(turns):
                with gate, gate:  # nested turns are one
                    bump(board)
        else:
            optimizer_gate = OptimizerGate(board.fd)
            for _ in range(turns):
                optimizer_gate.enter()
                bump(board)
                optimizer_gate.leave()
            assert len(optimizer_gate.waits_s) == turns
    assert process.returncode == 0
    assert board.state[0, 0] == 2 * turns


def test_without_turns_updates_are_lost() -> None:
    """That the test above can fail."""
    turns = 20_000
    board = Board(1, 4, "float64")
    code = f"say('ready'); sys.stdin.readline()\nfor _ in range({turns}): bump()"
    for _ in range(20):
        board.state[:] = 0
        with other(board, code) as process:
            assert heard(process) == "ready"
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            for _ in range(turns):
                bump(board)
        if board.state[0, 0] < 2 * turns:
            return
    pytest.fail("two processes without turns lost no update, in 20 attempts")


@pytest.mark.parametrize(
    "holds", ["OptimizerGate(board.fd).enter()", "ChunkGate(board.fd).__enter__()"]
)
def test_the_kernel_lets_go_when_the_holder_is_killed(holds: str) -> None:
    board = Board(1, 4, "float64")
    with other(board, f"{holds}; say('held'); time.sleep(600)") as process:
        assert heard(process) == "held"
        with other(board, "ChunkGate(board.fd).__enter__(); say('mine')") as waiting:
            time.sleep(0.2)
            assert waiting.poll() is None  # it has to wait
            process.send_signal(signal.SIGKILL)
            assert heard(waiting) == "mine"
    gate = OptimizerGate(board.fd)
    gate.enter()
    gate.leave()


def test_the_optimizer_gets_in_within_a_turn_or_two() -> None:
    """The communicator takes one chunk after the other, without a break, and holds each for long;
    how many turns it gets while the optimizer waits is counted, not timed."""
    board = Board(1, 4, "float64")
    code = """
gate = ChunkGate(board.fd)
say('ready')
while count[1] == 0:
    with gate:
        count[0] += 1
        time.sleep(0.002)
"""
    with other(board, code) as process:
        assert heard(process) == "ready"
        while board.state[0, 0] < 10:
            time.sleep(0.001)
        gate, passed = OptimizerGate(board.fd), []
        for _ in range(100):
            before = board.state[0, 0]
            gate.enter()
            passed.append(board.state[0, 0] - before)
            gate.leave()
            time.sleep(0.001)
        board.state[0, 1] = 1
    # one that is under way when we come, and one that passed the turnstile just before
    assert max(passed) <= 2
    assert board.state[0, 0] > 100  # the communicator has had its turns in between


def test_the_optimizer_lets_go_after_a_step_that_failed() -> None:
    board = Board(1, 4, "float64")
    gate = OptimizerGate(board.fd)
    gate.enter()
    gate.enter()  # the step before has raised
    gate.leave()
    gate.leave()
    with other(board, "ChunkGate(board.fd).__enter__()") as process:
        pass
    assert process.returncode == 0


def test_a_turn_of_the_optimizer_is_entered_and_left_once() -> None:
    """Also one that was broken off, and whatever was let go of without being held."""
    seen: list[str] = []

    class Turn:
        def __enter__(self) -> None:
            seen.append("in")

        def __exit__(self, *_: object) -> None:
            seen.append("out")

    gate = OptimizerGate(Board(1, 4, "float64").fd, Turn())
    gate.leave()
    gate.enter()
    gate.enter()  # the step before has raised
    assert seen == ["in"]
    gate.leave()
    gate.leave()
    assert seen == ["in", "out"]


def test_a_long_run_remembers_the_last_waits_and_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("decent.runtime.gate.KEPT", 5)
    optimizer_gate = OptimizerGate(Board(1, 1, "float32").fd)
    for _ in range(20):
        optimizer_gate.enter()
        optimizer_gate.leave()
    assert len(optimizer_gate.waits_s) == 5
    assert optimizer_gate.longest_s >= max(optimizer_gate.waits_s)
