"""What is encrypted, with whose keys, and who may speak as whom.

Off loopback everything is encrypted, unless the user has said otherwise in so many words; on
loopback nothing is, unless asked for. A run's keys are those that its topology lists. If it lists
none, each worker makes a fresh pair when it starts and keeps the secret one to itself; the public
one is published beside its address, in the run folder, which all of the run trust.
"""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from decent import keys
from decent.config import Config
from decent.errors import ConfigError, PeerRefused, ProtocolError, WrongKey
from decent.runtime.rendezvous import Rendezvous
from decent.topology import Topology
from decent.worker.messages import Message

if TYPE_CHECKING:
    from decent.transport.zeromq import Arrival


def address_of(config: Config, topology: Topology, worker: int) -> str:
    """Where a worker is to listen."""
    runtime = config.runtime
    own = topology.addresses[worker] if topology.addresses else None
    if own:
        return own
    if runtime.transport == "ipc":
        return "ipc://*"
    port = runtime.port + worker if runtime.port else "*"
    return f"tcp://{runtime.host}:{port}"


def is_local(address: str) -> bool:
    """Whether what goes there stays on this machine."""
    scheme, _, place = address.partition("://")
    host = place.rpartition(":")[0].strip("[]")
    if scheme == "ipc" or host == "localhost":
        return True
    try:
        return ip_address(host.removeprefix("::ffff:")).is_loopback
    except ValueError:
        return False


def encrypts(config: Config, topology: Topology) -> bool:
    """Whether the workers of this run encrypt: all of them, or none."""
    if config.runtime.insecure:
        return False
    return config.runtime.encrypt or not on_one_machine(config, topology)


def on_one_machine(config: Config, topology: Topology) -> bool:
    """Whether all that the workers say to one another stays on this machine."""
    return all(is_local(address_of(config, topology, worker)) for worker in range(topology.n))


def key_file(config: Config, topology: Topology, worker: int) -> str | None:
    """The file of a worker's secret key, if the topology lists its public one."""
    place = config.runtime.keys
    if topology.keys is None and place is None:
        return None
    if topology.keys is None:
        raise ConfigError(
            f"runtime.keys = {place!r}, and the topology lists no public keys",
            "`key` of each worker in the topology's file",
            "add them, or leave runtime.keys out: then keys are made for each run",
        )
    if place is None:
        raise ConfigError(
            f"worker {topology.name(worker)} has a public key, and its secret one is not given",
            "runtime.keys, the file or folder of secret keys made by `decent keygen`",
            "set it, or remove all keys from the topology: then they are made for each run",
        )
    return str(keys.find(Path(place), topology.keys[worker]))


def check_keys(config: Config, topology: Topology) -> None:
    """Before any of these workers starts here: that its keys are at hand, if it needs any."""
    if topology.n > 1 and encrypts(config, topology):
        for worker in range(topology.n):
            key_file(config, topology, worker)


class Keyring:
    """The public keys of a run: those that its topology lists, or else those in its folder."""

    def __init__(self, topology: Topology, rendezvous: Rendezvous) -> None:
        self._topology, self._rendezvous = topology, rendezvous

    def key(self, worker: int) -> str | None:
        """A worker's; None if it has not published it yet."""
        listed = self._topology.keys
        return listed[worker] if listed else self._rendezvous.key(worker)

    def holder(self, key: str) -> int | None:
        """The worker whose key that is, if it is one's."""
        return next((each for each in range(self._topology.n) if self.key(each) == key), None)


def check_sender(arrival: Arrival, message: Message, me: int) -> None:
    """That a message comes from whom it names. Raises PeerRefused where the mistake is the peer's
    to mend, ProtocolError where nobody honest would have said it."""
    src = message.src
    if arrival.dialled is not None:
        if src != arrival.dialled:
            raise PeerRefused(
                f"worker {arrival.dialled} was dialled, worker {src} answers: check the addresses"
            )
        return
    _, source, _, dialled = arrival.name
    if source != b"%d" % src:
        raise ProtocolError(f"a connection named {arrival.route[:80]!r} speaks for worker {src}")
    if arrival.holder not in (None, src):
        raise WrongKey(
            f"worker {src} has shown the key of worker {arrival.holder}: each worker needs its own"
        )
    if dialled != b"%d" % me:
        raise PeerRefused(
            f"worker {src} has dialled worker {ascii(dialled[:20])[2:-1]}, "
            f"this is worker {me}: check the addresses"
        )
    if src <= me:
        raise ProtocolError(f"worker {src} has dialled worker {me}: the higher of two dials")
