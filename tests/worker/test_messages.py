"""The wire format: what is sent comes back; what is malformed is said to be, and nothing else."""

from __future__ import annotations

import tracemalloc
from typing import Any, get_type_hints

import msgpack
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.errors import PeerRefused, ProtocolError
from decent.worker import Packet
from decent.worker import frames as wired
from decent.worker import messages as m

from .common import examples

DTYPES = [np.dtype("<f4"), np.dtype("<f8")]
LIMIT = 64
MIX = get_type_hints(m.Request, include_extras=True)["mix"]
KINDS = msgspec.inspect.type_info(m.Any_).types
REALS = st.floats(-1e300, 1e300)
FIELDS = {
    m.Count: st.integers(0, 2**53 - 1),
    m.Known: st.integers(-1, 2**53 - 1),
    m.Real: REALS,
    m.Weight: st.floats(0, 1e300, exclude_min=True),
    str: st.text(max_size=20),
    bool: st.booleans(),
    tuple[m.Count, ...]: st.lists(st.integers(0, 500), max_size=20).map(tuple),
    MIX: st.lists(REALS, max_size=6).map(tuple),
}


@st.composite
def packets(draw: st.DrawFn, dtype: np.dtype[Any] = DTYPES[0]) -> Packet:
    kind = draw(st.sampled_from([each.cls for each in KINDS]))
    hints = {name: FIELDS[hint] for name, hint in get_type_hints(kind, include_extras=True).items()}
    message = kind(**{name: draw(hints[name]) for name in kind.__struct_fields__})
    if not isinstance(message, m.WithPayload):
        return Packet(message)
    values = np.arange(draw(st.integers(1, LIMIT))).astype(dtype)
    return Packet(message, values.view(np.uint8) if isinstance(message, m.Coded) else values)


def wire(packet: Packet) -> list[bytes]:
    return [bytes(frame) for frame in wired.encode(packet, "run")]


def with_payload(message: m.Message) -> list[bytes]:
    return wire(Packet(message, np.zeros(8, np.uint8)))


def sealed(
    body: Any, check: Any = None, place: Any = None, run: str = "run", **given: int
) -> bytes:
    """A header with its checksum."""
    return wired.seal(msgpack.packb(body), run, check, place, **given)


REPLY = m.Reply(0, 1, 0, 0, 0, 0, 0.0)
RESULT = m.Result(0, 1, 0, 0, (), 0, ())
SHAPE = "not \\[version, run, message, …\\]"


def test_every_message_is_tried() -> None:
    def leaves(kind: type) -> set[type]:
        below = kind.__subclasses__()
        return set().union(*map(leaves, below)) if below else {kind}

    assert {each.cls for each in KINDS} == leaves(m.Message)


@examples(200)
@given(st.data(), st.sampled_from(DTYPES))
def test_round_trip(data: st.DataObject, dtype: np.dtype[Any]) -> None:
    packet = data.draw(packets(dtype))
    message, payload, check, _ = wired.decode(wire(packet), "run", dtype, LIMIT)
    assert message == packet.message
    assert type(message) is type(packet.message)
    if packet.payload is None:
        assert payload is None
    else:
        np.testing.assert_array_equal(payload, packet.payload, strict=True)
        assert check == m.checksum(packet.payload)


def decode_or_complain(frames: list[bytes]) -> Packet | None:
    try:
        return wired.decode(frames, "run", DTYPES[0], LIMIT)
    except (ProtocolError, PeerRefused):
        return None


@examples(300)
@given(st.lists(st.binary(max_size=80), max_size=4))
def test_random_bytes(frames: list[bytes]) -> None:
    assert decode_or_complain(frames) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary() | st.builds(msgpack.Timestamp, st.integers(0, 99)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)  # fmt: skip


@examples(300)
@given(st.data(), packets())
def test_mutated_frames(data: st.DataObject, packet: Packet) -> None:
    frames = wire(packet)
    change = data.draw(st.sampled_from(["byte", "cut", "field", "header", "payload"]))
    if change == "byte":
        at = data.draw(st.integers(0, len(frames[0]) - 1))
        changed = bytearray(frames[0])
        changed[at] = data.draw(st.integers(0, 255))
        frames[0] = bytes(changed)
    elif change == "cut":
        frames[0] = frames[0][: data.draw(st.integers(0, len(frames[0]) - 1))]
    elif change == "field":
        body = msgspec.to_builtins(packet.message)
        body[data.draw(st.sampled_from(sorted(body)))] = data.draw(ANYTHING)
        frames[0] = sealed(body, 7 if len(frames) == 2 else None)
    elif change == "header":
        header = data.draw(st.lists(ANYTHING, min_size=6, max_size=6) | ANYTHING)
        frames[0] = msgpack.packb(header)
    else:
        frames[1:] = data.draw(st.lists(st.binary(max_size=5 * LIMIT), max_size=2))
    decoded = decode_or_complain(frames)
    if decoded is not None and decoded.payload is not None:
        assert 1 <= decoded.payload.nbytes <= 4 * LIMIT


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "0 frames"),
        ([b"", b"", b""], "3 frames"),
        ([b"\x96"], "not msgpack"),
        ([b"\x91" * 5000 + b"\x01"], SHAPE),
        ([b"\xdd\xff\xff\xff\xff"], SHAPE),
        ([b"\x96" + b"\x91" * 1000 + b"\x01\xa3run\x80"], SHAPE),
        ([b"\x96\x05" + b"\x91" * 1000 + b"\x01\x80"], SHAPE),
        ([b"\x96\x05\xa3run" + b"\x91" * 10_000 + b"\x01"], "not msgpack"),
        ([msgpack.packb([wired.VERSION, "run"])], SHAPE),
        ([sealed({"kind": "gossip"})], "malformed header"),
        ([sealed({"kind": "beat", "src": 0, "dst": 1})], "epoch"),
        ([bytes(wired.HEADER_BYTES + 1)], "the limit is"),
        ([*wire(Packet(m.Beat(0, 1, 0))), b"1234"], "Beat with a payload"),
        (wire(Packet(REPLY)), "Reply without a payload"),
        ([*wire(Packet(REPLY)), b"1"], "Reply without a payload"),
        ([with_payload(REPLY)[0]], "Reply without a payload"),
        ([with_payload(REPLY)[0], b""], "a payload of 0 bytes"),
        ([with_payload(RESULT)[0], b"12345"], "a payload of 5 bytes"),
        ([with_payload(REPLY)[0], bytes(4 * LIMIT + 4)], "of 260 bytes, expected 1 … 256"),
    ],
)  # fmt: skip
def test_malformed_frames_in_words(frames: list[bytes], words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        wired.decode(frames, "run", DTYPES[0], LIMIT)


GOOD: dict[str, Any] = {
    "request": {"seq": 3, "chunk": 2, "asked_s": 1.5, "settled": 1, "mix": [0.5], "to_epoch": 4},
    "reply": {"seq": 3, "chunk": 2, "asked_s": 1.5, "to_epoch": 4},
    "settled": {"seq": 3, "to_epoch": 4},
    "partial": {"round": 0, "dead": [], "chunk": 2, "weight": 1.5},
    "fetch": {"round": 0, "dead": [3], "chunk": 2},
}


def with_field(kind: str, **changed: Any) -> list[bytes]:
    head = {"kind": kind, "src": 0, "dst": 1, "epoch": 0, **GOOD[kind], **changed}
    payload = [bytes(8)] if kind in ("request", "reply", "partial") else []
    return [sealed(head, 9 if payload else None), *payload]


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_within_bounds_is_taken(kind: str) -> None:
    assert wired.decode(with_field(kind), "run", DTYPES[0], LIMIT).message.src == 0


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        *[(kind, {name: value}) for kind in GOOD for name in GOOD[kind] for value in (-1, 2**60)
          if name in ("seq", "chunk", "settled", "to_epoch", "round")],
        *[("request", {"mix": [value]}) for value in (float("nan"), float("inf"), 1e301)],
        ("request", {"mix": [0.5] * (m.SLOTS + 1)}),
        *[("partial", {"weight": value}) for value in (0.0, -1.0, float("nan"), float("inf"))],
        ("fetch", {"dead": [-1]}),
        ("reply", {"src": -1}),
    ],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused_in_words(kind: str, changed: dict[str, Any]) -> None:
    name = next(iter(changed))
    with pytest.raises(ProtocolError, match=rf"malformed header: .*\$\.{name}"):
        wired.decode(with_field(kind, **changed), "run", DTYPES[0], LIMIT)


def test_a_checksum_tells_any_flipped_bit() -> None:
    values = np.random.default_rng(0).normal(size=50).astype("f4")
    packet = Packet(RESULT, values, m.checksum(values))
    assert not packet.damaged
    for bit in range(8 * values.nbytes):
        other = values.copy()
        other.view(np.uint8)[bit // 8] ^= 1 << bit % 8
        assert packet._replace(payload=other).damaged


@pytest.mark.parametrize("message", [REPLY, m.Beat(0, 1, 5), m.Ready(1, 0, 5, 0, (3,))])
def test_so_does_that_of_a_header(message: m.Message) -> None:
    """Damage there must not pass for another exchange, worker, version or run."""
    [header, *_] = wire(Packet(message))
    for bit in range(8 * len(header)):
        damaged = bytearray(header)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ProtocolError):
            wired.decode([bytes(damaged), bytes(4)], "run", DTYPES[0], LIMIT)


def test_another_run_and_another_version_in_words() -> None:
    beat = {"kind": "beat", "src": 0, "dst": 1, "epoch": 0}
    with pytest.raises(PeerRefused, match="belongs to run 'other', this worker to run 'run'"):
        wired.decode([sealed(beat, run="other")], "run", DTYPES[0], LIMIT)
    with pytest.raises(
        PeerRefused, match=f"speaks protocol version 7, this worker {wired.VERSION}"
    ):
        wired.decode([sealed(beat, version=7)], "run", DTYPES[0], LIMIT)


@pytest.mark.parametrize(
    "claim", [b"\xdd\x7f\xff\xff\xff", b"\xdb\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff"]
)
def test_a_header_that_claims_gigabytes_costs_nothing(claim: bytes) -> None:
    """Two billion elements, bytes or keys announced in five bytes."""
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        wired.decode([claim + bytes(100)], "run", DTYPES[0], LIMIT)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_payloads_are_not_copied() -> None:
    values = np.arange(8, dtype="<f4")
    header, payload = wired.encode(Packet(RESULT, values), "run")
    assert np.shares_memory(np.frombuffer(payload, "<f4"), values)
    frame = bytes(payload)
    decoded = wired.decode([header, frame], "run", DTYPES[0], LIMIT).payload
    assert decoded is not None
    assert np.shares_memory(decoded, np.frombuffer(frame, "<f4"))
