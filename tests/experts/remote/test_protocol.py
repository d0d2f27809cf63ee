"""What goes over the wire comes back as it was; anything else is a ProtocolError."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from decent.errors import PeerError, PeerRefused, ProtocolError
from decent.experts.remote import protocol
from decent.experts.remote.protocol import Answer, Hello, Refuse, Steps, Velocity, Welcome

MESSAGES = [
    Hello("job", 0),
    Welcome("job", 0, ((0, "a"), (3, "b"))),
    Velocity("job", 7, 2, "digest"),
    Steps("job", 8, 2, "digest", (1.0, 0.5, 0.0)),
    Steps("job", 9, 2, "digest", (1.0, 0.0), 2.5),
    Answer("job", 8),
    Refuse("job", 8, "no"),
]
X = np.arange(6, dtype=np.float32).reshape(2, 3)
VALUES = st.sampled_from([np.float16, np.float32, np.float64, np.int64]).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1, max_dims=4, max_side=4))
)


@given(st.sampled_from(MESSAGES), st.lists(VALUES, max_size=3))
def test_there_and_back(message: protocol.Message, values: list[protocol.Array]) -> None:
    back, came = protocol.decode(protocol.encode(message, values))
    assert back == message
    for sent, each in zip(values, came, strict=True):
        np.testing.assert_array_equal(each, sent)
        assert each.dtype == sent.dtype
        assert not each.flags.writeable


@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_byte_is_noticed(message: protocol.Message, data: st.DataObject) -> None:
    frames = protocol.encode(message, [X])
    which = data.draw(st.integers(0, 1))
    at = data.draw(st.integers(0, len(frames[which]) - 1))
    changed = bytearray(frames[which])
    changed[at] ^= data.draw(st.integers(1, 255))
    frames[which] = bytes(changed)
    with pytest.raises(PeerError):
        protocol.decode(frames)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_noise_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(PeerError):
        protocol.decode(frames)


def forged(content: object, *frames: bytes) -> list[bytes]:
    """A whole message, sealed as it should be, of any content."""
    packed = msgspec.msgpack.encode(content)
    seal = protocol.checksum(np.frombuffer(packed, np.uint8))
    return [msgspec.msgpack.encode((protocol.VERSION, seal, packed)), *frames]


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        [{"kind": "hello", "job": "j", "seq": 0}],
        [{"kind": "nothing", "job": "j", "seq": 0}, []],
        [{"kind": "hello", "job": "j", "seq": -1}, []],
        [{"kind": "hello", "job": "j" * 201, "seq": 0}, []],
        [{"kind": "hello", "job": "j", "seq": 0, "more": 1}, []],
        [{"kind": "hello", "job": "j", "seq": 0}, [["|O", [1], 0]]],
        [{"kind": "hello", "job": "j", "seq": 0}, [["<f4", [2**53 - 1] * 8, 0]]],
        [{"kind": "hello", "job": "j", "seq": 0}, [["<f4", [2], 0], ["<f4", [2], 0]]],
        [{"kind": "steps", "job": "j", "seq": 1, "expert": 0, "digest": "d", "times": [1.5, 0]},
         [["<f4", [2], 0]]],
        [{"kind": "steps", "job": "j", "seq": 1, "expert": 0, "digest": "d", "times": [0.5] * 1001},
         [["<f4", [2], 0]]],
    ],
)  # fmt: skip
def test_forgeries_are_refused(content: object) -> None:
    with pytest.raises(ProtocolError):
        protocol.decode(forged(content, b"12345678"))


def test_another_version_is_told_from_damage() -> None:
    frames = protocol.encode(Hello("job", 0), version=protocol.VERSION + 1)
    with pytest.raises(PeerRefused, match=f"version {protocol.VERSION + 1}"):
        protocol.decode(frames)
