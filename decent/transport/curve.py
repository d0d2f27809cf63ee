"""CURVE: everything on a connection is encrypted, and both ends prove which key is theirs.

Whoever dials has to know the key of whom it dials. Whoever is dialled asks here, in the place of
ZeroMQ's authentication handler (ZAP, ZeroMQ RFC 27), which worker of the run a key belongs to:
keys of nobody are refused in the handshake, before a word is read, and ZeroMQ notes the worker on
every message of the others. ZAP is a socket among the worker's own, so there is no thread for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import zmq
from zmq.utils import z85

from decent import keys as files
from decent.errors import ConfigError
from decent.keys import Keys

ZAP, VERSION, DOMAIN = "inproc://zeromq.zap.01", b"1.0", b"decent"
OVERHEAD = 33
"""bytes by which a frame grows: its command's name, a nonce, flags and the box around it"""


def new_keys() -> Keys:
    """A fresh pair."""
    if not zmq.has("curve"):
        raise ConfigError(
            "this installation of ZeroMQ has no CURVE",
            "one that can encrypt",
            "install the pyzmq of PyPI: pip install --force-reinstall pyzmq",
        )
    public, secret = zmq.curve_keypair()
    return Keys(public.decode(), secret.decode())


def keys_in(path: Path) -> Keys:
    """The pair in a file; raises ConfigError if the two do not belong together."""
    keys = files.read(path)
    if zmq.curve_public(keys.secret.encode()).decode() != keys.public:
        raise ConfigError(
            f"{path}: its public key does not belong to its secret key",
            "a pair of keys", "copy it again, or make a new pair with `decent keygen`",
        )  # fmt: skip
    return keys


class Curve:
    """One worker's keys and its judgement of others'. `holder` knows whose a public key is."""

    def __init__(self, keys: Keys, holder: Callable[[str], int | None]) -> None:
        self.public = keys.public
        self._keys, self._holder = keys, holder
        self._zap: zmq.Socket[bytes]

    def serve(self, router: zmq.Socket[bytes], poller: zmq.Poller) -> None:
        """Before the router is bound: from then on nobody comes in who is not judged."""
        self._zap = router.context.socket(zmq.REP)
        self._zap.bind(ZAP)
        poller.register(self._zap, zmq.POLLIN)
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
        router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def dial(self, dealer: zmq.Socket[bytes], key: str) -> None:
        """Before the dealer is connected to whoever holds `key`."""
        dealer.setsockopt(zmq.CURVE_SERVERKEY, key.encode())
        dealer.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        dealer.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())

    def judge(self) -> Iterator[str]:
        """Answer for the keys shown since the last call; those refused, in words."""
        while True:
            try:
                _, request, _, address, _, _, key = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            shown = z85.encode(key).decode()
            worker = self._holder(shown)
            status, user = (b"400", b"") if worker is None else (b"200", b"%d" % worker)
            self._zap.send_multipart([VERSION, request, status, b"", user, b""])
            if worker is None:
                where = address.decode().removeprefix("::ffff:")
                yield f"the key {shown}, shown from {where}, is no worker's of this run"
