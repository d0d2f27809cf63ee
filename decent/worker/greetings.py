"""How workers meet: who greets whom, who is refused in words, and what a restart settles.

A peer counted as dead is taken back when it is heard again, unless it has said itself that it stops
for good, or a merge has begun here without it; then it is told so. What both had open was settled
when it was declared dead, and stays so; exchanges go on with the next number, under the epochs that
both know. If it has restarted meanwhile, both begin anew: it has a higher epoch, which it says in
its greeting, and nothing that was meant for its former self reaches it.
"""

from __future__ import annotations

from dataclasses import asdict

from decent.errors import PeerRefused
from decent.worker import messages as m
from decent.worker.context import Context
from decent.worker.exchanges import Exchanges
from decent.worker.identity import Identity
from decent.worker.merging import Merging
from decent.worker.peers import Peer


class Greetings:
    """One worker's greetings with its `peers`; `identity` is what all of a run have in common."""

    def __init__(
        self,
        context: Context,
        identity: Identity,
        peers: dict[int, Peer],
        exchanges: Exchanges,
        merging: Merging,
    ) -> None:
        self.context, self.identity = context, identity
        self.peers, self.exchanges, self.merging = peers, exchanges, merging

    def greet(self, peer: Peer, now_s: float, answering: m.Hello | None = None) -> None:
        self.context.send(
            peer.id, m.Hello, answer=answering is None, to_epoch=peer.epoch,
            asked_s=answering.asked_s if answering else now_s, **asdict(self.identity),
        )  # fmt: skip

    def receive(self, hello: m.Hello, now_s: float) -> None:
        problem = self._mismatch(hello)
        if problem:
            self.refuse(hello, problem)
            if hello.src in self.peers and not self.peers[hello.src].greeted:
                self.context.fail(PeerRefused(problem))
            return
        peer = self.peers[hello.src]
        if hello.epoch > peer.epoch:
            self._renew(peer, hello.epoch, now_s)
        elif hello.epoch < peer.epoch:
            return  # of its former self
        self.heard(peer, now_s)
        self.merging.tell(peer.id)
        if hello.answer:
            self.greet(peer, now_s, hello)
        elif hello.to_epoch == self.context.epoch and not peer.met:
            peer.round_trip.measure(now_s - hello.asked_s)

    def strange(self, message: m.Message) -> bool:
        """Whether it is from nobody that we have to do with; a greeting is refused in words."""
        all_ = range(self.identity.workers)
        known = all_ if isinstance(message, m.Wave) else self.merging.kin
        stranger = message.src not in known and not isinstance(message, m.Hello)
        return stranger or message.src == self.context.me

    def stale(self, peer: Peer, message: m.Message, now_s: float) -> bool:
        """Whether it is of the peer's former self, or for ours."""
        late = isinstance(message, m.Addressed) and message.to_epoch != self.context.epoch
        if late or message.epoch != peer.epoch:
            kind, whose = type(message).__name__.lower(), "for this" if late else "of that"
            self.context.refuse(f"a {kind} {whose} worker's former self", now_s)
            return True
        return False

    def heard(self, peer: Peer, now_s: float) -> None:
        """A sign of life."""
        without = (reduction.dead for reduction in self.merging.reductions.values())
        if peer.state == "dead" and not peer.gone and not any(peer.id in dead for dead in without):
            peer.state = "silent"  # until now
        if peer.hear(now_s):
            self.context.trace("heard again", now_s, peer=peer.id)

    def _renew(self, peer: Peer, epoch: int, now_s: float) -> None:
        """The peer appears, or has restarted and knows nothing of what was before."""
        if peer.greeted:
            self.exchanges.part(peer, "the peer has restarted", now_s)
            self.exchanges.mixing.coder.forget(peer.id)
            self.context.trace("fault", now_s, what="peer restarted", peer=peer.id)
            if self.merging.started:  # what its former self has put in is lost
                peer.state = "dead"
                self.merging.exclude({peer.id}, now_s)
        self.context.near.forget(peer.id)
        peer.epoch, peer.gone, peer.blind = epoch, False, False
        peer.answers.begin(-1)

    def _mismatch(self, hello: m.Hello) -> str | None:
        me = self.context.me
        if hello.src not in self.peers:
            return f"worker {hello.src} is not a neighbour of worker {me} in this topology"
        return self.identity.difference(me, hello)

    def refuse(self, message: m.Message, reason: str) -> None:
        self.context.stats.refused += 1
        self.context.send(message.src, m.Refuse, reason=reason)

    def refused(self, by: int, why: str, now_s: float, final: bool = True) -> None:
        """`by` will not talk to us. Fatal if it is one that we dialled (the higher worker of two
        does) and have not met; else it is noted: a stranger may have said it. What is not `final`
        may pass, and is fatal if it has not when the peer is given up."""
        self.context.refuse(why, now_s)
        peer = self.peers.get(by)
        if by < self.context.me and peer is not None and peer.state == "expected":
            peer.doubt = why
            if final:
                self.context.fail(PeerRefused(why))
