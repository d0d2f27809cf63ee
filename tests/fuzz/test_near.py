"""What stands behind a header: payloads of any codec, frames that name shared memory, and the files
in which workers say where they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from decent.errors import ConfigError, ProtocolError
from decent.runtime.rendezvous import Rendezvous
from decent.transport.shared import Neighbour, Place, Shortcuts, machine
from decent.transport.zeromq import ZeroMQ
from decent.worker import codecs

from . import mutations
from .mutations import Tally

CODECS = [
    codecs.get("exact"), codecs.get("fp32"), codecs.get("bf16"), codecs.get("fp16"),
    codecs.get("int8", block=16), codecs.get("topk", share=0.02), codecs.get("topk", share=0.4),
]  # fmt: skip
SIZES = [1, 7, 64, 501]
SHARE = mutations.frames_wanted() / mutations.CI
near = pytest.mark.skipif(not machine(), reason="no anonymous shared memory on this system")


def payloads(random: Random, valid: list[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Of any size and content; many of them near to a valid one."""
    for _ in range(count):
        data = bytearray(random.choice(valid).tobytes())
        match random.randrange(5):
            case 0:
                data = bytearray(random.randbytes(len(data)))
            case 1:
                data = bytearray(random.randbytes(random.randrange(2 * len(data) + 2)))
            case 2:
                data = data[: random.randrange(len(data) + 1)]
            case _:
                for _ in range(random.randrange(1, 9)):
                    data[random.randrange(len(data))] = random.randrange(256)
        yield np.frombuffer(bytes(data), np.uint8)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.title)
def test_a_codec_hears_values_or_says_that_it_does_not(codec: Any, dtype: str) -> None:
    random, tally = Random(mutations.seed()), Tally(f"payloads to {codec.title}, {dtype}")
    kind = np.dtype(dtype)
    for size in SIZES:
        values = np.random.default_rng(size).normal(size=size).astype(kind)
        asked = codec.ask(values, np.zeros_like(values))
        valid = [asked.payload, codec.ask(values).payload, codec.answer(values, asked).payload]
        for number, payload in enumerate(payloads(random, valid, round(SHARE * 1_500))):
            answer = asked if number % 2 else None
            try:
                said = codec.hear(payload, size, kind, answer)
            except ProtocolError as error:
                tally.refused(error)
                continue
            where = np.arange(size) if said.where is None else said.where
            assert said.values.dtype == kind
            assert said.values.shape == where.shape
            assert (np.diff(where) > 0).all()
            assert 0 <= where[0] <= where[-1] < size
            tally.count("taken")
    tally.show()


def beside() -> tuple[Shortcuts, Shortcuts]:
    """Workers 0 and 1; the first has put a payload."""
    places: dict[int, Place | None] = {}
    there, here = (Shortcuts(4096, [peer], 4, places.get) for peer in (1, 0))
    places.update({0: there.arena.place, 1: here.arena.place})
    return there, here


@near
def test_a_mark_that_names_memory_gets_what_is_there_or_nothing() -> None:
    random, tally = Random(mutations.seed()), Tally("marks that name shared memory")
    there, here = beside()
    sent = np.frombuffer(np.random.default_rng(0).bytes(1000), np.uint8)
    good = there.outgoing(1, False, (0, 1), sent)
    assert good is not None
    for _ in range(round(SHARE * 50_000)):
        slot, generation, size = (
            word if random.random() < 0.5 else random.choice([0, 1, 2**52, 2**53 - 1, word + 1])
            for word in good
        )
        found = here.find(random.choice([0, 0, 0, 1, 2, None]), (slot, generation, size))
        tally.count("nothing" if found is None else "what is there")
        if found is not None:
            assert (slot, generation) == good[:2]
            assert bytes(found[0])[:1000] == bytes(sent[:size])
            assert found[0].size == size <= 4096
            assert found[1]()
    tally.show()
    again = here.find(0, good)
    assert again is not None
    assert bytes(again[0]) == bytes(sent)


@near
def test_one_without_a_name_does_not_close_anothers_memory() -> None:
    """It closed worker 0's."""
    there, here = beside()
    mark = there.outgoing(1, False, (0, 0), np.zeros(100, np.uint8))
    assert mark is not None
    assert here.find(0, mark) is not None
    opened = here._open[0]
    assert here.find(None, mark) is None
    assert here._open[0] is opened


NONSENSE: list[Any] = [
    None, True, -1, 0, 7, 2**70, 1.5, "", "x", "../../0", [], [1], {}, {"a": 1}, "tcp://", "tcp://x",
    "tcp://127.0.0.1:999999", "ipc://", "inproc://zeromq.zap.01", "tcp://\0:1", "x" * 300, "é" * 40,
]  # fmt: skip


@near
def test_where_memory_is_may_be_nonsense() -> None:
    random, tally = Random(mutations.seed()), Tally("places of shared memory")
    there, _ = beside()
    assert there.arena.place is not None
    good = there.arena.place.published()
    reading, writing = os.pipe()
    for _ in range(round(SHARE * 5_000)):
        bad = dict(good)
        for name in random.sample(sorted(bad), random.randrange(1, 3)):
            bad[name] = random.choice([*NONSENSE, reading, writing, 0, 1, 2])
        place = Place.of(random.choice([bad, bad, bad, random.choice(NONSENSE) or {}]))
        if place is None:
            tally.count("no place")
            continue
        with suppress(OSError, ValueError):
            tally.count("looked at")
            Neighbour(place)
    for each in (reading, writing):
        os.close(each)
    tally.show()


@near
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    """A process that has ended, and whose number is another's by now."""
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDWR)
    fifo = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    os.close(fd)
    place = Place(machine(), os.getpid(), fifo, 4, 4096)
    with pytest.raises(OSError, match="is no arena"):
        Neighbour(place)
    os.close(fifo)


def test_a_file_of_nonsense_says_nothing_yet(tmp_path: Path) -> None:
    rendezvous, tally = Rendezvous(tmp_path), Tally("endpoint.json")
    transport = ZeroMQ("run/1/1", "tcp://127.0.0.1:*", 4096)
    rendezvous.publish(0, "tcp://127.0.0.1:5555", None, None)
    file = tmp_path / "workers" / "0" / "endpoint.json"
    texts = [json.dumps(each) for each in NONSENSE] + ["{", "[" * 5000, '{"address": NaN}', "\0"]
    whole = [
        json.dumps({"address": a, "arena": b, "key": a}) for a in NONSENSE for b in NONSENSE[::5]
    ]
    for text in [*texts, *whole, "x" * 200_000]:
        file.write_text(text)
        arena, key, address = (
            find(0) for find in (rendezvous.arena, rendezvous.key, rendezvous.lookup)
        )
        assert arena is None or isinstance(arena, dict)
        assert key is None or isinstance(key, str)
        if address is None:
            tally.count("no address yet")
            continue
        with suppress(ConfigError):
            transport.dial(0, address)
            tally.count("dialled")
            continue
        tally.count("ConfigError")
        assert not transport.knows(0)
    file.write_bytes(b"\xff\xfe")
    assert rendezvous.lookup(0) is None
    file.unlink()
    file.mkdir()
    assert rendezvous.lookup(0) is None
    transport.close(0)
    tally.show()
