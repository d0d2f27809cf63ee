"""Whom to dial, where, and when again: the higher of two workers dials the lower."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from decent.errors import ConfigError
from decent.runtime.link import Spec
from decent.runtime.rendezvous import Rendezvous
from decent.runtime.security import Keyring
from decent.transport.zeromq import ZeroMQ
from decent.worker.peers import Peer

Place = tuple[str, str | None]
"""an address, and the key of whoever listens there, with CURVE"""
LOOK_S = 1.0


class Dialler:
    """For the worker of `spec`. `complain(peer, why)` is called where there is no such address."""

    def __init__(
        self,
        spec: Spec,
        transport: ZeroMQ,
        rendezvous: Rendezvous,
        keyring: Keyring,
        complain: Callable[[int, str], None],
    ) -> None:
        self._spec, self._transport = spec, transport
        self._rendezvous, self._keyring = rendezvous, keyring
        self._complain = complain
        self._dialled: dict[int, Place] = {}
        self._look_at_s = 0.0

    def dial(self, peer: int) -> bool:
        """False while there is nowhere to dial."""
        place = self._place(peer)
        if place is None:
            return False
        self._dialled[peer] = place
        try:
            self._transport.dial(peer, *place)
        except ConfigError as error:  # it may yet publish another
            self._complain(peer, str(error))
            return False
        return True

    def look(self, peers: Iterable[Peer], now_s: float) -> None:
        """Dial anew who has not been heard for a while, and has come back somewhere else."""
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_S
        for peer in peers:
            known = self._dialled.get(peer.id)
            quiet = now_s - peer.heard_s > 2 * self._spec.limits.beat_s
            if known is not None and quiet and self._place(peer.id) not in (None, known):
                self.dial(peer.id)

    def _place(self, peer: int) -> Place | None:
        if peer >= self._spec.me:
            return None
        addresses = self._spec.topology.addresses
        address = addresses[peer] if addresses else None
        via = self._rendezvous.via(peer, self._spec.me)
        address = via or address or self._rendezvous.lookup(peer)
        key = self._keyring.key(peer) if self._spec.encrypt else None
        if address is None or (self._spec.encrypt and key is None):
            return None
        return address, key
