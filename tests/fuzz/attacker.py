"""A stranger with time on its hands: `python -m fuzz.attacker KIND ADDRESS RUN SEED SECONDS`.

`frames`: malformed and misdirected messages over ZeroMQ, on connections of any name, as fast as
they are taken. `tcp`: connections that are not ZeroMQ's, or stop being so, one after the other.
`curve`: connections with a key of nobody's. Prints what was sent as JSON.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import suppress
from random import Random

import numpy as np
import zmq

from decent.worker import frames as wired
from decent.worker import messages as m

from . import mutations
from .test_decoder import PACKETS

POOL = 40_000
GREETING = b"\xff" + 8 * b"\x00" + b"\x7f\x03\x00NULL" + 48 * b"\x00"
READY = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER\x08Identity\x00\x00\x00\x00"


def names(random: Random, run: str) -> bytes:
    """How a connection calls itself: anything, or nearly as workers do. No name comes twice: where
    two connections have one, libzmq keeps the older's socket, if it has left anything unread."""
    unique = random.randbytes(12).hex()
    return random.choice([
        random.randbytes(random.randrange(20, 255)), f"/{unique}/".encode(),
        f"////{unique}".encode(), f"{run}/7/{unique}/0".encode(), f"{run}/1//{unique}/0".encode(),
        f"{run}/-1/{unique}/0".encode(), f"{run}/{'9' * 200}/{unique}/0".encode(),
        f"other/1/{unique}/0".encode(), b"x" * 230 + unique.encode(),
        f"{run}/1/{unique}/7".encode(), f"/1/{unique}/0".encode(), f"{run}/0/{unique}/0".encode(),
    ])  # fmt: skip


def pool(random: Random, run: str) -> list[list[bytes]]:
    """Messages of other runs, and of this one: malformed, or from workers that are none."""
    strange = [packet._replace(message=_from(packet.message, 7)) for packet in PACKETS]
    own = [[bytes(frame) for frame in wired.encode(packet, run)] for packet in strange]
    valid = [(frames[0], frames[1] if len(frames) > 1 else None) for frames in own]
    rng = np.random.default_rng(random.getrandbits(32))
    made = [*mutations.some(POOL, rng, valid, 1024), *own * 200]
    made += [[bytes(each) for each in wired.encode(packet, "other")] for packet in strange] * 200
    random.shuffle(made)
    return [[bytes(frame) for frame in frames] or [b""] for frames in made]


def _from(message: m.Message, src: int) -> m.Message:
    return type(message)(
        **{name: getattr(message, name) for name in message.__struct_fields__} | {"src": src}
    )


def frames(address: str, run: str, random: Random, end_s: float) -> int:
    context, sent, ready = zmq.Context(), 0, pool(random, run)

    def dealer() -> zmq.Socket[bytes]:
        made = context.socket(zmq.DEALER)
        made.setsockopt(zmq.LINGER, 0)
        made.setsockopt(zmq.ROUTING_ID, names(random, run))
        made.connect(address)
        return made

    # A connection that is closed by its own end amid a message of several frames ends libzmq with
    # an assertion, at that end: those that come and go send single ones.
    single = [message for message in ready if len(message) == 1]
    stay, go = [dealer() for _ in range(4)], [dealer() for _ in range(2)]
    while time.monotonic() < end_s:
        at = random.randrange(len(stay) + len(go))
        leaves = at >= len(stay)
        source, one = (single, go[at - len(stay)]) if leaves else (ready, stay[at])
        start, taken = random.randrange(len(source)), 0
        with suppress(zmq.Again):
            for message in source[start : start + 500]:
                one.send_multipart(message, zmq.NOBLOCK)
                taken += 1
            if leaves:
                one.close()
                go[at - len(stay)] = dealer()
        sent += taken
        if not taken:
            time.sleep(0.001)
    context.destroy(0)
    return sent


def chatter(random: Random) -> list[bytes]:
    """What one connection says, piece by piece."""
    junk = random.randbytes(random.randrange(1, 3000))
    return random.choice([
        [junk], [GREETING + junk], [GREETING, READY + junk], [GREETING, b"\x04\xff" + junk], [],
        [GREETING, READY, b"\x02" + 8 * b"\xff" + junk], [GREETING, READY, b"\x01\x00" * 500],
        [GREETING, READY, b"\x00\x05hello"], [b"\xff" + 8 * b"\x00" + b"\x7f\x01\x05" + junk],
        [b"\x01\x00" + junk], [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], [GREETING[:11]],
        [GREETING, b"\x04\x90\x05READY\x08Identity\x00\x00\x00\x7f" + junk[:200]],
        [GREETING.replace(b"NULL\x00", b"PLAIN"), junk],
        [GREETING.replace(b"NULL\x00", b"CURVE"), junk],
    ])  # fmt: skip


def tcp(address: str, run: str, random: Random, end_s: float) -> int:
    port, made, open_ = int(address.rpartition(":")[2]), 0, list[socket.socket]()
    while time.monotonic() < end_s:
        with suppress(OSError):
            one = socket.create_connection(("127.0.0.1", port), timeout=5)
            for piece in chatter(random):
                one.sendall(piece)
            open_.append(one)
            made += 1
        if len(open_) > 50:
            open_.pop(random.randrange(len(open_))).close()
    return made


def curve(address: str, run: str, random: Random, end_s: float) -> int:
    """Knows the right key of whom it dials; its own are nobody's."""
    context, made, server = zmq.Context(), 0, run.encode()
    while time.monotonic() < end_s:
        dealers = []
        for _ in range(20):
            one = context.socket(zmq.DEALER)
            one.setsockopt(zmq.LINGER, 0)
            public, secret = zmq.curve_keypair()
            if made % 4:
                one.setsockopt(zmq.CURVE_SERVERKEY, server)
                one.setsockopt(zmq.CURVE_PUBLICKEY, public)
                one.setsockopt(zmq.CURVE_SECRETKEY, secret)
            one.connect(address)
            dealers.append(one)
            made += 1
        time.sleep(0.02)
        for one in dealers:
            one.close(0)
    context.destroy(0)
    return made


def main() -> None:
    kind, address, run, seed, seconds = sys.argv[1:]
    attack = {"frames": frames, "tcp": tcp, "curve": curve}[kind]
    print(json.dumps({kind: attack(address, run, Random(seed), time.monotonic() + float(seconds))}))


if __name__ == "__main__":
    main()
