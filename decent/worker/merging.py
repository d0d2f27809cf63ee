"""One worker's part in the global means: which are under way, and who has to be watched for them.

`Reduction` knows one mean on one tree after another; here several of them, by round, meet what a
worker knows of its peers: who is dead, who sits next to us in a tree without being a neighbour,
who has come to a mean before us.
"""

from __future__ import annotations

import math

from decent.errors import Declared
from decent.topology import Topology
from decent.worker import messages as m
from decent.worker.context import Context
from decent.worker.peers import Peer
from decent.worker.reduction import Reduction
from decent.worker.slots import Array


class Merging:
    """The reductions of worker `context.me`; `peers` are its neighbours, as it sees them."""

    def __init__(self, context: Context, topology: Topology, peers: dict[int, Peer]) -> None:
        self.context, self.topology, self.peers = context, topology, peers
        self.reductions: dict[int, Reduction] = {}
        self.kin: dict[int, Peer] = {}  # no neighbours, but next to us in the tree of a merge
        self._early: dict[int, m.Wave] = {}  # latest word of a merge we have not come to
        self._told: set[int] = set()  # rounds whose result is in the trace
        self.newcomer = False  # back as another: of no use where it was merged without already

    @property
    def started(self) -> bool:
        """What this worker adds to some mean is fixed."""
        return any(reduction.started for reduction in self.reductions.values())

    def begin(self, round: int, vector: Array, weight: float, now_s: float) -> Reduction:
        dead = {peer.id for peer in self.peers.values() if peer.state == "dead"}
        reduction = Reduction(
            self.context.me, self.topology, round, vector, weight, self.context.limits,
            self.context.send, dead,
        )  # fmt: skip
        self.reductions[round] = reduction
        self._meet(reduction, now_s)
        for wave in [wave for wave in self._early.values() if wave.round == round]:
            del self._early[wave.src]
            self.receive(wave, None, now_s)
        return reduction

    def poll(self, now_s: float) -> None:
        """Not to be called while an exchange of this worker's is open."""
        for reduction in list(self.reductions.values()):
            reduction.poll(now_s)
            self._conclude(reduction, now_s)

    def next_s(self) -> float:
        return min((r.next_s() for r in self.reductions.values()), default=math.inf)

    def beat(self) -> None:
        """Signs of life along the trees."""
        for reduction in self.reductions.values():
            reduction.beat()
        if all(reduction.closed for reduction in self.reductions.values()):
            self.kin.clear()

    def receive(self, message: m.Wave, payload: Array | None, now_s: float) -> None:
        known = self.peers.get(message.src) or self.kin.get(message.src)
        if known is not None and known.greeted and known.hear(now_s):
            self.context.trace("heard again", now_s, peer=known.id)
        reduction = self.reductions.get(message.round)
        if reduction is None:
            self._remember(message, payload)
            return
        if message.src in reduction.dead and self.context.me in message.dead:
            return  # each has buried the other: neither would ever give in
        if message.src not in reduction.dead:  # the dead have no say
            self._exclude(reduction, set(message.dead), now_s)
        if reduction.dead != set(message.dead):
            dead = tuple(sorted(reduction.dead))
            self.context.send(message.src, m.Obituary, round=message.round, dead=dead)
        else:
            reduction.receive(message, payload)
            self._conclude(reduction, now_s)

    def tell(self, peer: int) -> None:
        """That a merge has begun without it, if one has."""
        for reduction in self.reductions.values():
            if peer in reduction.dead:
                dead = tuple(sorted(reduction.dead))
                self.context.send(peer, m.Obituary, round=reduction.round, dead=dead)

    def exclude(self, dead: set[int], now_s: float) -> None:
        """Go on without these, in every mean."""
        for reduction in self.reductions.values():
            self._exclude(reduction, dead, now_s)

    def _remember(self, message: m.Wave, payload: Array | None) -> None:
        """Word of a mean that we have not come to."""
        if self.newcomer and self.context.me in message.dead:
            self._declared()
        if payload is None and 0 <= message.src < self.topology.n:
            self._early[message.src] = message
            if message.src not in self.peers:  # it waits for us: a sign of life
                self.context.send(message.src, m.Beat)

    def _exclude(self, reduction: Reduction, dead: set[int], now_s: float) -> None:
        if self.context.me in dead:
            self._declared()
        elif reduction.exclude(worker for worker in dead if 0 <= worker < self.topology.n):
            self.context.trace("fault", now_s, what="merging without", dead=sorted(reduction.dead))
            self._meet(reduction, now_s)

    def _declared(self) -> None:
        what = f"worker {self.context.me} was silent so long that its peers merged without it"
        self.context.fail(Declared(what))

    def _meet(self, reduction: Reduction, now_s: float) -> None:
        """Watch whom the tree puts next to us, neighbour or not."""
        for peer in reduction.peers():
            if peer not in self.peers:
                self.kin[peer] = Peer(peer, now_s, epoch=0, heard_s=now_s, state="alive")

    def _conclude(self, reduction: Reduction, now_s: float) -> None:
        if reduction.result is not None and reduction.round not in self._told:
            self._told.add(reduction.round)
            among = list(reduction.among)
            self.context.trace("merge", now_s, round=reduction.round, among=among)
