"""Where experts are served: the file of hosts, and the connections to them.

deadline_s = 30.0             # an island has so long for an answer
hedge_s = 5.0                 # after that the next is asked as well; left out: never
connect_s = 10.0              # for all islands, at the start
key = "mine.key"              # the caller's, of `decent keygen`; beside this file

[[expert]]                    # several of one number are replicas, asked in this order
number = 0
address = "tcp://10.0.0.1:5555"
key = "…"                     # the public key of that island
digest = "…"                  # of the weights; may be left out where the ensemble's folder has
                              # the expert's config.json, which pins it too
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from decent import keys, toml
from decent.config import Strict
from decent.errors import ConfigError
from decent.experts import files, store
from decent.experts.remote import protocol
from decent.experts.remote.caller import Caller, Island
from decent.experts.remote.client import RemoteExpert
from decent.experts.store import Record
from decent.keys import Keys
from decent.runtime.security import is_local
from decent.transport.curve import keys_in, new_keys


class Host(Strict, frozen=True):
    """One expert at one address."""

    number: int
    address: str
    key: str | None = None
    digest: str | None = None


class Hosts(Strict, frozen=True):
    """The whole file."""

    expert: tuple[Host, ...]
    deadline_s: float = 30.0
    hedge_s: float | None = None
    connect_s: float = 10.0
    key: str | None = None

    def __post_init__(self) -> None:
        for name in ("deadline_s", "hedge_s", "connect_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 86_400:
                raise ConfigError(f"{name} = {value}", "seconds above 0, at most a day")


class Experts(list[RemoteExpert]):
    """Experts 0 … K − 1 and the connections that they share; `close` ends these, or `with`."""

    def __init__(self, caller: Caller, experts: Iterator[RemoteExpert]) -> None:
        super().__init__(experts)
        self._caller = caller

    @property
    def absent(self) -> dict[str, str]:
        """Addresses that cannot be asked now, and why."""
        return {each.address: each.why for each in self._caller.islands if not each.ready}

    def close(self) -> None:
        self._caller.close()

    def __enter__(self) -> Experts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load(path: Path) -> Hosts:
    """The file of hosts. Raises ConfigError, with the place of the error in it."""
    try:
        return msgspec.convert(toml.read(path), Hosts)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path}: {error}", "a file of hosts, as docs/serving.md has it"
        ) from None


def connect(
    path: Path, experts: int, records: Mapping[str, Record] | None = None, insecure: bool = False
) -> Experts:
    """Connect to `experts` experts where the file of hosts says they are. Digests are pinned by the
    file, by `records`, by name as an opened pipeline has them, or by both alike.

    Raises ConfigError for a file that cannot be used, for an expert whose digest nobody pins, and
    for an island that serves other weights than expected or refuses our key. An island that is not
    there after `connect_s` is not waited for: its experts answer ExpertLost until it is.
    """
    hosts = load(path)
    pinned = {k: _digest(path, hosts, k, records or {}) for k in range(experts)}
    islands: dict[tuple[str, str | None], Island] = {}
    replicas: dict[int, list[int]] = {k: [] for k in pinned}
    for host in hosts.expert:
        _check(path, host, experts, insecure)
        place = (host.address, host.key)
        island = islands.setdefault(place, Island(*place, {}))
        island.experts[host.number] = pinned[host.number]
        replicas[host.number].append(list(islands).index(place))
    shapes = [record.shape for record in (records or {}).values()]
    limit = protocol.frame_bytes(shapes[0]) if shapes else protocol.LARGEST
    caller = Caller(
        list(islands.values()), limit, _keys(path, hosts), hosts.deadline_s, hosts.hedge_s
    )
    try:
        caller.meet(hosts.connect_s)
    except BaseException:
        caller.close()
        raise
    return Experts(caller, (RemoteExpert(caller, k, pinned[k], replicas[k]) for k in pinned))


def _digest(path: Path, hosts: Hosts, k: int, records: Mapping[str, Record]) -> str:
    own = [host for host in hosts.expert if host.number == k]
    if not own:
        raise ConfigError(f"{path}: no expert of number {k}", "at least one address for each")
    known = {host.digest for host in own if host.digest}
    if (name := store.expert(k)) in records:
        known.add(records[name].digest)
    if len(known) != 1:
        raise ConfigError(
            f"{path}: expert {k} has {len(known)} digests{': ' * bool(known)}{', '.join(known)}",
            "the one of its weights, which `decent serve` prints",
            f"set digest, or keep {name}/{files.CONFIG} in the ensemble's folder",
        )
    return known.pop()


def _check(path: Path, host: Host, experts: int, insecure: bool) -> None:
    if not 0 <= host.number < experts:
        raise ConfigError(
            f"{path}: expert.number = {host.number}", f"0 … {experts - 1}, as the ensemble has them"
        )
    if host.key is not None and not keys.is_key(host.key):
        raise ConfigError(
            f"{path}: the key of {host.address}", "40 characters, as `decent serve` prints them"
        )
    if host.key is None and not is_local(host.address) and not insecure:
        raise ConfigError(
            f"{path}: {host.address} has no key, and is not on this machine",
            "the public key that `decent serve` prints there",
            "set key, or give --insecure to send everything unencrypted",
        )


def _keys(path: Path, hosts: Hosts) -> Keys | None:
    """The caller's pair: that of the file, or a fresh one where an island has a key."""
    if hosts.key is not None:
        return keys_in(path.parent / hosts.key)
    return new_keys() if any(host.key for host in hosts.expert) else None
