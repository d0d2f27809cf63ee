"""Callers and islands over real sockets: right answers, and every way in which one can go wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decent import keys
from decent.errors import ConfigError, ExpertLost, RuntimeFault
from decent.experts import solvers
from decent.experts.guidance import Guided
from decent.experts.remote import connect, protocol
from decent.experts.remote.protocol import Answer, Hello, Message, Request, Welcome
from decent.experts.remote.server import Server, checked
from decent.experts.remote.serving import Door
from decent.transport.curve import new_keys
from decent.transport.zeromq import ZeroMQ
from experts.remote.islands import LOCAL, PATIENCE_S, SHAPE, expert, hosts, inputs, island, served


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hosts.toml"


def at(server: Server | ZeroMQ, number: int = 0, **more: Any) -> dict[str, Any]:
    return {"number": number, "address": server.address} | more


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("labels", [False, True])
def test_an_answer_is_the_experts_own(file: Path, dtype: torch.dtype, labels: bool) -> None:
    x, t = inputs(5, dtype)
    condition = torch.tensor([0, 1, -1, 4, 2]) if labels else None
    with island(served(0, 1)) as server, connect(
        hosts(file, at(server, 0), at(server, 1)), 2
    ) as experts:  # fmt: skip
        futures = [each.submit(x, t, condition) for each in experts]
        for k, future in enumerate(futures):
            assert torch.equal(future.result(PATIENCE_S), expert(k)(x, t, condition))


def test_several_steps_are_eulers(file: Path) -> None:
    x, _ = inputs()
    times = [1.0, 0.75, 0.5]
    with island(served(0)) as server, connect(hosts(file, at(server)), 1) as experts:
        there = experts[0].steps(x, times).result(PATIENCE_S)
    assert torch.equal(there, solvers.along(times, solvers.euler, expert(0), x))


def test_guided_steps_are_those_of_both_halves(file: Path) -> None:
    x, _ = inputs()
    times, labels = [1.0, 0.75, 0.5], torch.tensor([0, 1, -1, 4])
    guided = Guided(expert(0), 2.5)
    with island(served(0)) as server, connect(hosts(file, at(server)), 1) as experts:
        there = experts[0].steps(x, times, labels, 2.5).result(PATIENCE_S)
        with pytest.raises(ExpertLost, match="guidance of nan: expected a finite scale"):
            experts[0].steps(x, times, labels, math.nan).result(PATIENCE_S)
        many = torch.zeros(protocol.ROWS, *SHAPE)
        with pytest.raises(ConfigError, match=f"expected 1 to {protocol.ROWS // 2}"):
            experts[0].steps(many, times, many[:, 0].long(), 2.5)
    here = solvers.along(times, solvers.euler, lambda x, t: guided(x, t, labels), x)
    assert torch.equal(there, here)


def test_requests_that_wait_share_a_forward(file: Path) -> None:
    """The first holds the expert up until the others have come."""
    waiting, go = threading.Event(), threading.Event()

    def slow(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        waiting.set()
        assert go.wait(PATIENCE_S)
        return expert(0)(x, t, condition)

    with island(served(0, model=slow)) as server, connect(hosts(file, at(server)), 1) as experts:
        first = experts[0].submit(*inputs(2))
        assert waiting.wait(PATIENCE_S)
        others = [experts[0].submit(*inputs(rows)) for rows in (3, 4, 5)]
        probe = experts[0].submit(*inputs(6))
        go.set()
        for rows, future in zip((2, 3, 4, 5, 6), [first, *others, probe], strict=True):
            assert torch.equal(future.result(PATIENCE_S), expert(0)(*inputs(rows)))
        assert server.counts.requests == 5
        assert server.counts.forwards <= 5


def test_one_bad_request_of_a_group_fails_alone() -> None:
    """Two in one round; the expert cannot stand rows of zeros."""

    def picky(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        if (x == 0).all(-1).any():
            raise ValueError("zeros")
        return expert(0)(x, t, condition)

    said: list[Message] = []

    class Wire:
        address = ""

        def answer(self, route: bytes, frames: list[Any]) -> bool:
            said.append(protocol.decode(frames)[0])
            return True

    server = Server(served(0, model=picky), Wire())  # type: ignore[arg-type]
    x, t = (each.numpy() for each in inputs(2))
    works = [
        checked(b"", protocol.Velocity("job", seq, 0, "digest-0"), [states, t], server.experts)
        for seq, states in ((1, x), (2, x * 0))
    ]
    server._answer(works)
    assert [(each.seq, type(each).__name__) for each in said] == [(1, "Answer"), (2, "Refuse")]


def test_wrong_weights_are_refused_at_once_and_in_words(file: Path) -> None:
    with island(served(0)) as server, pytest.raises(ConfigError) as caught:
        connect(hosts(file, at(server, digest="another")), 1)
    assert f"{server.address} serves expert 0 with the digest digest-0, expected another" in str(
        caught.value
    )


def test_an_expert_that_is_not_there_is_refused(file: Path) -> None:
    with island(served(1)) as server, pytest.raises(ConfigError, match="does not serve expert 0"):
        connect(hosts(file, at(server)), 1)


def test_what_the_server_refuses_is_told_and_the_next_is_served(file: Path) -> None:
    x, t = inputs()
    with island(served(0)) as server, connect(hosts(file, at(server)), 1) as experts:
        for bad, why in [
            ((x[:, :2], t), "expected 1 to 16384 rows"),
            ((x * torch.nan, t), "x is not finite"),
            ((x, t + 1), "a time outside"),
            ((x, t, torch.full((4,), 5)), "labels beyond −1 … 4"),
            ((x, t, torch.zeros(3, dtype=torch.int64)), r"a condition of \(3,\)"),
        ]:
            with pytest.raises(ExpertLost, match=why):
                experts[0].submit(*bad).result(PATIENCE_S)
        assert torch.equal(experts[0](x, t), expert(0)(x, t))
        assert server.counts.refused == 5


def test_what_cannot_be_sent_is_the_callers_mistake(file: Path) -> None:
    with island(served(0)) as server, connect(hosts(file, at(server)), 1) as experts:
        x = torch.zeros(protocol.ROWS + 1, *SHAPE)
        with pytest.raises(ConfigError, match="rows for a remote expert"):
            experts[0].submit(x, x[:, 0])
        with pytest.raises(ConfigError, match="bfloat16"):
            experts[0].submit(x[:2].bfloat16(), x[:2, 0])


Liar = Callable[[Request, list[np.ndarray]], list[Any]]


@contextmanager
def liar(says: Liar) -> Iterator[ZeroMQ]:
    """An island that greets as it should and answers whatever `says` makes of a request."""
    wire, stop = ZeroMQ("liar", LOCAL, 1 << 20), threading.Event()

    def run() -> None:
        while not stop.is_set():
            wire.poller.poll(20)
            for arrival in wire.receive(8):
                message, arrays = protocol.decode(arrival.frames)
                if isinstance(message, Hello):
                    frames = protocol.encode(Welcome(message.job, 0, ((0, "digest-0"),)))
                else:
                    assert isinstance(message, Request)
                    frames = says(message, arrays)
                if frames:
                    wire.answer(arrival.route, frames)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield wire
    finally:
        stop.set()
        thread.join()
        wire.close(0)


def answered(change: Callable[[np.ndarray], Any]) -> Liar:
    return lambda request, arrays: protocol.encode(
        Answer(request.job, request.seq), [change(arrays[0])]
    )


LIES: dict[str, tuple[Liar, str]] = {
    "shape": (answered(lambda x: x[:, :2]), r"answers float32 \(4, 2\), expected float32 \(4, 3\)"),
    "dtype": (answered(lambda x: x.astype(np.float64)), "answers float64"),
    "not finite": (answered(lambda x: x * np.inf), "not finite"),
    "no array": (lambda r, _: protocol.encode(Answer(r.job, r.seq)), "Answer with 0 arrays"),
    "another message": (lambda r, _: protocol.encode(Hello(r.job, r.seq)), "answers Hello"),
    "noise": (lambda r, _: [b"noise"], "sends what cannot be read"),
    "nothing": (lambda r, _: [], "has not answered in 0.3 s"),
    "refusal": (lambda r, _: protocol.encode(protocol.Refuse(r.job, r.seq, "no")), "refuses: no"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_answer_goes_to_the_replica_and_without_one_the_expert_is_lost(
    file: Path, lie: str
) -> None:
    says, why = LIES[lie]
    x, t = inputs()
    patience_s = 0.3 if lie == "nothing" else 600.0
    with liar(says) as wrong, island(served(0)) as right:
        alone = hosts(file, at(wrong), deadline_s=patience_s)
        with connect(alone, 1) as experts, pytest.raises(ExpertLost, match=why):
            experts[0].submit(x, t).result(PATIENCE_S)
        both = hosts(file, at(wrong), at(right), deadline_s=600.0, hedge_s=0.05)
        with connect(both, 1) as experts:
            answer = experts[0].submit(x, t).result(PATIENCE_S)
            assert torch.equal(answer, expert(0)(x, t))


def test_a_slow_island_is_hedged_long_before_its_deadline(file: Path) -> None:
    x, t = inputs()
    with liar(lambda r, _: []) as slow, island(served(0)) as quick:
        both = hosts(file, at(slow), at(quick), deadline_s=600.0, hedge_s=0.05)
        with connect(both, 1) as experts:
            assert torch.equal(experts[0].submit(x, t).result(PATIENCE_S), expert(0)(x, t))


def test_an_island_that_goes_is_noticed_without_a_deadline(file: Path) -> None:
    x, t = inputs()
    with ExitStack() as open_, ExitStack() as island_:
        gone = island_.enter_context(liar(lambda r, _: []))
        experts = open_.enter_context(connect(hosts(file, at(gone), deadline_s=600.0), 1))
        future = experts[0].submit(x, t)
        island_.close()
        with pytest.raises(ExpertLost, match=r"the connection is lost|cannot be reached"):
            future.result(PATIENCE_S)


def test_nobody_there_is_an_expert_lost_and_no_error_of_connecting(file: Path) -> None:
    with island(served(0)) as server:
        nobody = server.address
    with connect(hosts(file, {"number": 0, "address": nobody}, connect_s=0.3), 1) as experts:
        assert list(experts.absent) == [nobody]
        with pytest.raises(ExpertLost, match=r"cannot be reached|does not answer"):
            experts[0](*inputs())


def test_what_is_open_when_the_caller_closes_fails(file: Path) -> None:
    with liar(lambda r, _: []) as slow, connect(hosts(file, at(slow)), 1) as experts:
        future = experts[0].submit(*inputs())
        experts.close()
        with pytest.raises(RuntimeFault, match="closed"):
            future.result(PATIENCE_S)
        with pytest.raises(RuntimeFault, match="closed"):
            experts[0](*inputs())


def test_keys_let_in_whom_they_should(file: Path, tmp_path: Path) -> None:
    own, mine, stranger = new_keys(), new_keys(), new_keys()
    for name, pair in (("mine", mine), ("stranger", stranger)):
        keys.write(pair, str(tmp_path / name))
    x, t = inputs()
    with island(served(0), Door(LOCAL, own, (mine.public,))) as server:
        table = at(server, key=own.public)
        with connect(hosts(file, table, key="mine.key"), 1) as experts:
            assert torch.equal(experts[0](x, t), expert(0)(x, t))
        with pytest.raises(ConfigError, match="refuses the key") as caught:
            connect(hosts(file, table, key="stranger.key", connect_s=PATIENCE_S), 1)
        assert stranger.secret not in str(caught.value)
        with pytest.raises(ConfigError, match="encrypts, and no key"):
            connect(hosts(file, at(server), connect_s=PATIENCE_S), 1)
        wrong = hosts(file, at(server, key=stranger.public), key="mine.key", connect_s=0.5)
        with connect(wrong, 1) as experts, pytest.raises(ExpertLost, match=server.address[-5:]):
            experts[0](x, t)


def test_a_server_stands_whatever_is_thrown_at_it(file: Path) -> None:
    """Random frames, and messages of the right form with random arrays."""
    random = np.random.default_rng(0)
    x, t = inputs()
    with island(served(0)) as server, connect(hosts(file, at(server)), 1) as experts:
        thrower = ZeroMQ("thrower", LOCAL, 1 << 20)
        thrower.dial(0, server.address)
        for seq in range(200):
            count = int(random.integers(1, 5))
            frames: list[Any] = [random.bytes(random.integers(0, 300)) for _ in range(count)]
            if seq % 2:
                kinds = random.choice(["<f2", "<f4", "<f8", "<i8"], count)
                shapes = [tuple(random.integers(0, 4, random.integers(0, 4))) for _ in kinds]
                arrays = [random.random(s).astype(k) for k, s in zip(kinds, shapes, strict=True)]
                kind = random.choice([protocol.Velocity, protocol.Steps])
                rest = ((1.0, 0.0),) if kind is protocol.Steps else ()
                frames = protocol.encode(kind("job", seq, 0, "digest-0", *rest), arrays)
            assert thrower.send(0, frames)
        seen = 0
        while seen < 200:
            assert thrower.poller.poll(PATIENCE_S * 1000)
            seen += sum(1 for _ in thrower.receive(64))
        thrower.close(0)
        assert server.counts.refused + server.counts.requests == 200
        assert torch.equal(experts[0](x, t), expert(0)(x, t))
