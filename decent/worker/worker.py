"""One worker as a state machine: (state, event) → packets in an outbox.

No clock, socket, thread or torch: a driver passes events and seconds in, sends what it finds in
`outbox`, and wakes the worker at `wake_s`. `simulation` and `runtime` drive this same class.

    start      the driver is ready to carry messages
    advance    local gradient steps are done (the optimizer has written row 0 of the slots)
    receive    a packet has come
    poll       time has passed
    reduce     training is over, take part in a global mean
    checkpoint between two steps: remember all, to go on from it with `restore`
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

from decent.dynamics import Dynamics
from decent.errors import DynamicsError, PeerRefused
from decent.schedule import Agenda, Never, Schedule, View
from decent.topology import Topology
from decent.worker import joining, pulse, snapshot
from decent.worker import messages as m
from decent.worker.clock import Clock, RateMeter, StepClock
from decent.worker.codec import Codec
from decent.worker.context import Context, Record
from decent.worker.cuts import Cuts
from decent.worker.exchanges import Exchanges
from decent.worker.greetings import Greetings
from decent.worker.identity import Identity
from decent.worker.joining import Adoption
from decent.worker.ledger import Ledger
from decent.worker.limits import Limits
from decent.worker.merging import Merging
from decent.worker.momentum import Momentum, system_at
from decent.worker.near import Near
from decent.worker.peers import Peer, suspended
from decent.worker.reduction import Reduction
from decent.worker.slots import Array, Slots


class Worker:
    """Worker `me` of `topology`. `state` (S, d) is changed in place; row 0 is the live vector.

    `digest` names the model's layout: peers with another are refused in words. `steps` is the
    planned number of local steps, if known (schedules may look at progress). Without `follow` the
    momentum counts on the nominal rates whatever is achieved, as the papers do. `codec` is what
    exchanges are sent in, by all alike. `ledger` keeps the books, for an audit. `near` knows of
    peers on the same machine. A checkpoint is due every `checkpoint_every` steps, and whenever
    `cuts` says so.
    """

    def __init__(
        self,
        me: int,
        topology: Topology,
        dynamics: Dynamics,
        schedule: Schedule,
        state: Array,
        *,
        seed: int = 0,
        run: str = "",
        digest: str = "",
        steps: int | None = None,
        epoch: int = 0,
        clock: Clock | None = None,
        limits: Limits | None = None,
        record: Record | None = None,
        guard: AbstractContextManager[object] | None = None,
        follow: bool = True,
        codec: Codec | None = None,
        ledger: Ledger | None = None,
        near: Near | None = None,
        checkpoint_every: int = 0,
    ) -> None:
        self.topology, self.dynamics, self.steps = topology, dynamics, steps
        self.context = Context(
            me, run, epoch, limits or Limits(), clock or StepClock(),
            record or (lambda event: None), near or Near(),
        )  # fmt: skip
        self.codec = codec or Codec()
        system = system_at(dynamics, topology, self.codec.mixes)
        if not (system.mix.any() and system.message.any()) and not isinstance(schedule, Never):
            raise DynamicsError(
                f"dynamics {dynamics.name!r} with mix {system.mix.tolist()} and message "
                f"{system.message.tolist()}", "an exchange that mixes something",
                "give a mix and a message that are not 0, or use the schedule 'never'",
            )  # fmt: skip
        hold = Slots if ledger is None else ledger.slots
        self.slots: Slots = hold(state, system, self.context.limits.chunk, guard)
        self.identity = Identity(
            topology.n, self.slots.values, self.slots.chunk, state.dtype.str, digest,
            self.codec.title,
        )  # fmt: skip
        rates = topology.neighbours(me)
        self.meter = RateMeter(sum(rates.values()) * self.codec.mixes)
        self.exchanges = Exchanges(self.context, self.slots, self.meter, self.codec)
        self.peers = {peer: Peer(peer, 0.0) for peer in rates}
        self.agenda = Agenda(schedule, View.of(topology, me, seed))
        self.merging = Merging(self.context, topology, self.peers)
        self._beat_at_s = -math.inf
        self.momentum = Momentum(
            dynamics, topology, self.slots, self.meter, self.codec.mixes, follow
        )
        self.greetings = Greetings(
            self.context, self.identity, self.peers, self.exchanges, self.merging
        )
        self.cuts = Cuts(self.context, checkpoint_every)
        self.adoption: Adoption | None = None
        self.finished = False  # no more steps will come: start nothing
        self.ledger = ledger
        if ledger is not None:
            ledger.open(self)

    @property
    def me(self) -> int:
        return self.context.me

    @property
    def outbox(self) -> list[m.Packet]:
        return self.context.outbox

    @property
    def ready(self) -> bool:
        """Every neighbour has answered our greeting, or is given up. For one that comes back it is
        enough that one has, and that it has its parameters."""
        if self.adoption is not None:
            return False
        met = [peer.met or peer.state == "dead" for peer in self.peers.values()]
        back = self.merging.newcomer and any(peer.met for peer in self.peers.values())
        return all(met) or back

    @property
    def progress(self) -> float | None:
        """Share of the planned steps that is done."""
        return None if not self.steps else min(1.0, self.context.clock.steps / self.steps)

    def time(self, now_s: float) -> float:
        return self.context.clock.time(now_s)

    # events

    def start(self, now_s: float) -> None:
        for peer in self.peers.values():
            peer.since_s = now_s
        self.context.clock.advance(self.context.clock.steps, now_s)
        self.poll(now_s)

    def turn(self) -> AbstractContextManager[object]:
        """To be entered around a local step in this process, so that the ledger measures it."""
        return nullcontext() if self.ledger is None else self.ledger.strides

    def advance(self, steps: int, now_s: float) -> None:
        """`steps` local steps are done in all."""
        if steps != self.context.clock.steps:
            self.context.clock.advance(steps, now_s)
            self.context.trace("gradient", now_s, steps=steps)
        self.poll(now_s)

    def poll(self, now_s: float) -> None:
        """Do what is due: contacts, repeats, signs of life, the merge."""
        if self.context.fatal is not None:
            return
        self.context.budget.refill(now_s)
        for packet in self.cuts.released():
            peer = self.peers[packet.message.src]
            if not self.greetings.stale(peer, packet.message, now_s):
                self._dispatch(peer, packet, now_s)
        self._watch(now_s)
        joining.check(self)
        self._contact(now_s)
        self.exchanges.retry(self.peers, now_s)
        if not self.exchanges.open:  # only then is this worker ready to be merged
            self.merging.poll(now_s)

    def wake_s(self, now_s: float) -> float:
        """When `poll` next has something to do, if nothing else happens before."""
        clock = self.context.clock
        contact_s = math.inf if self.finished else clock.when(self.agenda.next_time)
        merge_s = math.inf if self.exchanges.open else self.merging.next_s()
        adopt_s = math.inf if self.adoption is None else self.adoption.next_s()
        return min(self._beat_at_s, contact_s, self.exchanges.next_s(), merge_s, adopt_s)

    def wake_step(self) -> float:
        """The step at whose end `poll` has something to do."""
        return math.inf if self.finished else self.agenda.next_time

    def receive(self, packet: m.Packet, now_s: float) -> None:
        """A packet from a peer. What cannot be ours is counted and dropped."""
        message = packet.message
        self.context.budget.refill(now_s)
        self.context.stats.bytes_received += packet.nbytes
        peer = self.peers.get(message.src)
        if isinstance(message, m.Refuse):
            self.refused(message.src, f"worker {message.src} refuses: {message.reason}", now_s)
        elif message.dst != self.me:
            why = f"worker {message.dst} was meant, this is worker {self.me}"
            self.greetings.refuse(message, why)
        elif peer is None and self.greetings.strange(message):
            self.context.stats.refused += 1
        elif packet.damaged:
            self._damaged(message, now_s)
        elif isinstance(message, m.Wave):
            self.merging.receive(message, packet.payload, now_s)
        elif isinstance(message, m.Hello):
            self.greetings.receive(message, now_s)
        elif peer is None:
            self.merging.kin[message.src].hear(now_s)
        elif self.greetings.stale(peer, message, now_s):
            self.greetings.greet(peer, now_s)
        else:
            self.greetings.heard(peer, now_s)
            if not self.cuts.hold(packet):
                self._dispatch(peer, packet, now_s)
                self.momentum.follow(self.time(now_s), self.exchanges.delay)

    def refused(self, by: int, why: str, now_s: float, final: bool = True) -> None:
        """`by` will not talk to us; if not `final`, it may yet."""
        self.greetings.refused(by, why, now_s, final)

    def _damaged(self, message: m.Message, now_s: float) -> None:
        """Counted and dropped: it will be asked for again."""
        self.context.stats.damaged += 1
        kind = type(message).__name__.lower()
        self.context.trace("damaged", now_s, peer=message.src, what=kind)

    def _dispatch(self, peer: Peer, packet: m.Packet, now_s: float) -> None:
        message = packet.message
        if isinstance(message, m.Asking):
            refusal = "merging" if self.merging.started else "joining" if self.adoption else ""
            self.exchanges.on_request(peer, packet, now_s, refusal)
        elif isinstance(message, m.Answer):
            self.exchanges.on_reply(peer, packet, now_s)
        elif isinstance(message, m.Decline):
            self.exchanges.on_decline(peer, message, now_s)
        elif isinstance(message, m.Settled):
            self.exchanges.on_settled(peer, message)
        elif isinstance(message, m.Beat):
            pulse.felt(self.context, peer, message, now_s)
        elif isinstance(message, m.Show):
            joining.show(self, message, now_s)
        elif isinstance(message, m.Shown) and self.adoption is not None:
            assert packet.payload is not None
            self.adoption.receive(message, packet.payload, now_s)
        elif isinstance(message, m.Gone):
            peer.state, peer.gone = "dead", True
            self.context.trace("fault", now_s, what="peer dead", peer=peer.id, why=message.reason)
            self._bury(peer, now_s)

    # contacts and momentum

    def _contact(self, now_s: float) -> None:
        if self.adoption is not None:
            self.adoption.poll(now_s)
        if self.finished or self.adoption is not None:
            return
        for peer in self.agenda.due(self.time(now_s), self.progress, suspended(self.peers)):
            self.exchanges.start(self.peers[peer], now_s)

    def refresh(self, now_s: float) -> None:
        """Let every chunk drift to now: before a gradient is taken."""
        self.slots.refresh(self.time(now_s))

    # signs of life

    def _watch(self, now_s: float) -> None:
        late_s = now_s - self._beat_at_s
        if late_s < 0:
            return
        self._beat_at_s = now_s + self.context.limits.beat_s
        for peer in self.peers.values():
            if peer.met:
                pulse.feel(self.context, peer, now_s)
            elif peer.state != "dead":
                self.greetings.greet(peer, now_s)
        self.merging.beat()
        for peer in (*self.peers.values(), *self.merging.kin.values()):
            if self.context.limits.silent_s < late_s < math.inf:
                peer.excuse(late_s)
            change = peer.judge(now_s, self.context.limits)
            if change:
                self.context.trace("fault", now_s, what=f"peer {change}", peer=peer.id)
            if change == "dead" and peer.doubt and not peer.greeted:
                self.context.fail(PeerRefused(peer.doubt))
            if change == "dead":
                self._bury(peer, now_s)

    def _bury(self, peer: Peer, now_s: float) -> None:
        self.exchanges.part(peer, "the peer is dead", now_s)
        self.merging.exclude({peer.id}, now_s)

    # checkpoints

    def checkpoint(self, now_s: float) -> snapshot.Tree:
        """Take one, between two local steps. What had to wait for it is for the next `poll`."""
        self.cuts.take()
        return snapshot.taken(self, now_s)

    def restore(self, tree: snapshot.Tree, now_s: float) -> None:
        """Go on from a checkpoint, before `start`."""
        snapshot.restore(self, tree, now_s)

    @property
    def cut_step(self) -> float:
        """The step at whose end a checkpoint is due: none once this worker's part of the merge is
        settled."""
        return math.inf if self.merging.started or self.adoption else self.cuts.due_step

    def rejoin(self, tree: snapshot.Tree | None, now_s: float) -> None:
        """Come back as another, before `start`: from a checkpoint of the former self, or from the
        parameters of a neighbour. The ledger is one that is not begun anew."""
        self.merging.newcomer = True
        if tree is None:
            self.adoption = Adoption(self)
        else:
            joining.take_over(self, tree, now_s)

    def close(self, now_s: float) -> None:
        """Nothing more will happen to this worker: its ledger is complete."""
        if self.ledger is not None:
            self.ledger.close(now_s)

    def leave(self, reason: str) -> None:
        """Tell the neighbours that this worker stops for good."""
        for peer in self.peers.values():
            if peer.greeted:
                self.context.send(peer.id, m.Gone, reason=reason)

    # the global merge

    @property
    def reductions(self) -> dict[int, Reduction]:
        """The global means this worker takes part in, by round."""
        return self.merging.reductions

    def reduce(self, round: int, vector: Array, weight: float, now_s: float) -> Reduction:
        """Take part in the weighted mean of everyone's `vector` (any length, the same for all).

        Round 0 is the merge of the parameters: no more steps, nothing started from here on.
        """
        self.finished = True
        self.refresh(now_s)
        self.exchanges.mixing.check(vector)
        reduction = self.merging.begin(round, vector, weight, now_s)
        self.poll(now_s)
        return reduction
