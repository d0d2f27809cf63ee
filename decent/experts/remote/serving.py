"""What `decent serve` stands on: which experts, behind which door.

On loopback nothing is encrypted unless a key is given. Elsewhere everything is, and only the keys
allowed come in, unless `insecure` is said in so many words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch

from decent import keys as texts
from decent.errors import ConfigError, ModelError
from decent.experts import store
from decent.experts.prediction import AsVelocity
from decent.experts.remote import protocol
from decent.experts.remote.server import Served, Server
from decent.keys import Keys
from decent.runtime.security import is_local
from decent.transport.curve import Curve, keys_in, new_keys
from decent.transport.zeromq import ZeroMQ


class Door(NamedTuple):
    """Where to listen, and who comes in: with keys, those of `allow`, or anyone if it is empty."""

    address: str
    keys: Keys | None = None
    allow: tuple[str, ...] = ()

    def curve(self) -> Curve | None:
        return None if self.keys is None else Curve(self.keys, self._number)

    def _number(self, key: str) -> int | None:
        if not self.allow:
            return 0
        return self.allow.index(key) if key in self.allow else None


def door(
    address: str, key: Path | None = None, allow: Sequence[str] = (), insecure: bool = False
) -> Door:
    """Raises ConfigError where it would be open to strangers, and for keys that are none."""
    if wrong := [each for each in allow if not texts.is_key(each)]:
        raise ConfigError(f"--allow {wrong[0]}", "40 characters, as `decent keygen` prints them")
    if insecure and (key or allow):
        raise ConfigError("--insecure with --key or --allow", "one or the other")
    if insecure or (is_local(address) and not key and not allow):
        return Door(address)
    if not is_local(address) and not allow:
        raise ConfigError(
            f"--listen {address} without --allow",
            "the public keys of those who may ask, off loopback",
            "make a pair with `decent keygen` where samples are drawn, and allow its public key; "
            "--insecure lets everyone in, unencrypted",
        )
    return Door(address, keys_in(key) if key else new_keys(), tuple(allow))


def experts(
    folder: Path, numbers: Sequence[int], device: str = "cpu", threads: int = 1
) -> dict[int, Served]:
    """Experts of the ensemble in `folder`, as velocities. Raises ModelError for one that is not
    there, is damaged, or is of other samples than the rest."""
    if len(set(numbers)) > protocol.EXPERTS:
        raise ConfigError(f"{len(set(numbers))} experts", f"at most {protocol.EXPERTS}")
    torch.set_num_threads(threads)
    served = {}
    for number in numbers:
        module, record = store.load(folder / store.expert(number), device)
        model = AsVelocity(module, record.prediction).eval()
        served[number] = Served(model, record.digest, record.shape, record.classes)
    if len(shapes := {each.shape for each in served.values()}) > 1:
        raise ModelError(f"{folder}: experts of shapes {sorted(shapes)}", "experts of one ensemble")
    return served


@contextmanager
def listening(experts: Mapping[int, Served], door: Door, device: str = "cpu") -> Iterator[Server]:
    """A server at that door, closed at the end. Raises ConfigError if the address is taken."""
    largest = max(protocol.frame_bytes(each.shape) for each in experts.values())
    try:
        transport = ZeroMQ("experts", door.address, largest, door.curve())
    except ConfigError as error:
        raise ConfigError(
            f"--listen {door.address}: {error.given.rpartition(': ')[2]}",
            error.expected, "free the port, or give * for one that the system chooses",
        ) from None  # fmt: skip
    try:
        yield Server(experts, transport, device)
    finally:
        transport.close(linger_ms=0)
