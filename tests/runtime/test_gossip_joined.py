"""`Gossip` with its communicator: two workers in two threads of this process, all else real."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace as changed
from torch import nn

from decent.config import Config, RuntimeTable
from decent.errors import CommunicatorError, ConfigError, PeerRefused
from decent.folder import read_json
from decent.runtime.binding import Mirror
from decent.runtime.gossip import Gossip
from decent.runtime.world import World
from decent.topology import family
from runtime.nodes import until

RING = family("ring", 2).with_models_per_worker(2.0)


class Pair:
    """What two workers do at the same time."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, list[Gossip]()
        self._threads = ThreadPoolExecutor(2)

    def both(self, act: Callable[[int], Any]) -> list[Any]:
        """`act(0)` and `act(1)`; what they return, or the exception that they raise."""
        futures = [self._threads.submit(act, me) for me in (0, 1)]
        return [future.exception(60) or future.result() for future in futures]

    def join(
        self, values: tuple[int, int] = (4, 4), start_s: float = 60.0, **options: Any
    ) -> list[Any]:
        config = changed(Config(), runtime=RuntimeTable(start_s=start_s))

        def join(me: int) -> Gossip:
            model = nn.Linear(values[me], 1, bias=False)
            with torch.no_grad():
                model.weight.fill_(float(me))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
            world = World(me, "test", self.folder, config)
            gossip = Gossip(model, optimizer, world=world, topology=RING, **options)
            self.made.append(gossip)
            return gossip

        return self.both(join)

    def close(self) -> None:
        self.both(lambda side: [each.close() for each in self.made[side::2]])
        self._threads.shutdown()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def step(gossip: Gossip) -> None:
    gossip._optimizer.step()
    gossip.step(loss=1.0)


def train(gossip: Gossip, steps: int, step_s: float) -> None:
    for _ in range(steps):
        step(gossip)
        time.sleep(step_s)


def value(gossip: Gossip) -> np.ndarray[Any, Any]:
    [parameter] = gossip._model.parameters()
    return parameter.detach().numpy().ravel()


def test_models_come_together_in_place(pair: Pair) -> None:
    gossips = pair.join(dynamics="gossip")

    def train(me: int) -> list[int]:
        end_s = time.monotonic() + 60
        while abs(value(gossips[me])[0] - 0.5) > 0.01 and time.monotonic() < end_s:
            step(gossips[me])
            time.sleep(0.01)
        gossips[me].log(accuracy=float(me))
        return gossips[me].merge()

    assert pair.both(train) == [[0, 1], [0, 1]]
    assert value(gossips[0]).tolist() == value(gossips[1]).tolist() == [0.5] * 4
    far = np.array([1e6, -1e7, 1.0])
    means = pair.both(lambda me: gossips[me].mean(far + 0.1 * me, weight=1.0 + me))
    for mean in means:  # what is alike does not cost the digits of what differs
        np.testing.assert_allclose(mean - far, 0.2 / 3, rtol=1e-6)
    assert all(stats["completed"] + stats["answered"] > 0 for stats in pair.both(close(gossips)))
    result = read_json(pair.folder / "workers/1/result.json")
    assert result["merged_among"] == [0, 1]
    assert result["metrics"] == {"accuracy": 1.0}
    assert result["parameters"] == 4
    assert gossips[0].close() == gossips[0].close()


def close(gossips: list[Gossip]) -> Callable[[int], Any]:
    return lambda me: gossips[me].close()


def test_a_killed_communicator_is_said_in_words(pair: Pair) -> None:
    gossips = pair.join()
    os.kill(gossips[0]._partner._process.pid, signal.SIGKILL)
    gossips[0]._partner._process.wait(60)
    with pytest.raises(CommunicatorError, match=r"ended with code -9; see log\.txt"):
        train(gossips[0], steps=20, step_s=0.05)
    with pytest.raises(CommunicatorError):
        gossips[0].merge()  # nor does it pretend to have merged
    gossips[0].close()


def test_a_communicator_that_fails_says_why(pair: Pair) -> None:
    """A schedule that goes wrong after a while."""

    def bad(view: Any) -> Iterator[tuple[float, int]]:
        yield 2.0, 1 - view.worker
        raise ZeroDivisionError("a mistake of the user's")

    gossips = pair.join(schedule=bad)
    with pytest.raises(CommunicatorError, match="ZeroDivisionError: a mistake of the user's"):
        train(gossips[0], steps=600, step_s=0.01)


def test_a_killed_communicator_is_noticed_in_the_merge(pair: Pair) -> None:
    gossips = pair.join()

    def act(me: int) -> list[int]:
        if me == 0:
            return gossips[0].merge()  # waits for worker 1
        time.sleep(0.5)
        os.kill(gossips[0]._partner._process.pid, signal.SIGKILL)
        return []

    [error, _] = pair.both(act)
    assert isinstance(error, CommunicatorError)
    assert "code -9" in str(error)


def test_a_step_that_failed_does_not_stop_the_gossip(pair: Pair) -> None:
    gossips = pair.join()

    def act(me: int) -> list[int]:
        gossip = gossips[me]

        def fail() -> float:
            raise ArithmeticError

        with pytest.raises(ArithmeticError):
            gossip._optimizer.step(fail)
        return gossip.merge()

    assert pair.both(act) == [[0, 1], [0, 1]]


def test_a_broken_off_step_does_not_stop_the_close(pair: Pair) -> None:
    """Ctrl-C in `optimizer.step()`."""
    gossips = pair.join()
    for gossip in gossips:
        gossip._before()
    assert all(stats["started"] == 0 for stats in pair.both(close(gossips)))


def test_another_model_is_refused_in_words(pair: Pair) -> None:
    errors = pair.join(values=(4, 5), start_s=3.0)
    assert isinstance(errors[1], PeerRefused)
    assert "parameters in the model: 5 at worker 1, 4 at worker 0" in str(errors[1])


def test_a_port_in_use_is_the_users_to_settle(pair: Pair, tmp_path: Path) -> None:
    pair.join()
    taken = read_json(tmp_path / "workers/0/endpoint.json")["address"]
    model = nn.Linear(4, 1)
    topology = replace(RING, addresses=(taken, None))
    with pytest.raises(ConfigError, match="in use"):
        Gossip(
            model, torch.optim.SGD(model.parameters(), lr=0.1), topology=topology,
            world=World(0, "other", tmp_path / "other"),
        )  # fmt: skip


def test_a_mirror_takes_both_sides_changes() -> None:
    """How a model on a GPU takes part (here on the CPU, with memory of its own)."""
    model = nn.Linear(3, 1, bias=False)
    vector = np.zeros(3, np.float32)
    mirror = Mirror(model, vector)
    weight = model.weight.detach().clone().numpy().ravel()
    assert vector.tolist() == weight.tolist()
    vector += 1.0  # a peer's correction
    with torch.no_grad():
        model.weight += 10.0  # the optimizer's step, at the same time
    mirror.reconcile()
    np.testing.assert_allclose(vector, weight + 11.0)
    assert model.weight.detach().numpy().ravel().tolist() == vector.tolist()
    vector[:] = 5.0  # the merge
    mirror.pull()
    mirror.reconcile()
    assert model.weight.detach().numpy().ravel().tolist() == [5.0] * 3


def test_nothing_is_left_behind(pair: Pair) -> None:
    gossips = pair.join()
    processes = [gossip._partner._process for gossip in gossips]
    pair.both(close(gossips))
    until(lambda: all(process.poll() is not None for process in processes), "both have ended")
    assert [process.returncode for process in processes] == [0, 0]
    assert not gossips[0]._optimizer._optimizer_step_pre_hooks
