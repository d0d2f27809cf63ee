"""One worker as a state machine: (state, event) → packets in an outbox.

No clock, socket, thread or torch: a driver passes events and seconds in, sends what it finds in
`outbox`, and wakes the worker at `wake_s`. `simulation` and `runtime` drive this same class.

    start      the driver is ready to carry messages
    advance    local gradient steps are done (the optimizer has written row 0 of the slots)
    receive    a packet has come
    poll       time has passed
    reduce     training is over, take part in a global mean
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict

from decent.dynamics import Dynamics
from decent.errors import DynamicsError, PeerRefused
from decent.schedule import Agenda, Never, Schedule, View
from decent.topology import Topology
from decent.worker import messages as m
from decent.worker import pulse
from decent.worker.clock import Clock, RateMeter, StepClock
from decent.worker.codec import Codec
from decent.worker.context import Context, Record
from decent.worker.exchanges import Exchanges
from decent.worker.identity import Identity
from decent.worker.ledger import Ledger
from decent.worker.limits import Limits
from decent.worker.merging import Merging
from decent.worker.momentum import Momentum, system_at
from decent.worker.peers import Peer, suspended
from decent.worker.reduction import Reduction
from decent.worker.slots import Array, Slots


class Worker:
    """Worker `me` of `topology`. `state` (S, d) is changed in place; row 0 is the live vector.

    `digest` names the model's layout: peers with another are refused in words. `steps` is the
    planned number of local steps, if known (schedules may look at progress). Without `follow` the
    momentum counts on the nominal rates whatever is achieved, as the papers do. `codec` is what
    exchanges are sent in, by all alike. `ledger` keeps the books, for an audit.
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
    ) -> None:
        self.topology, self.dynamics, self.steps = topology, dynamics, steps
        self.context = Context(
            me, run, epoch, limits or Limits(), clock or StepClock(), record or (lambda event: None)
        )
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
        self._agenda = Agenda(schedule, View.of(topology, me, seed))
        self.merging = Merging(self.context, topology, self.peers)
        self._beat_at_s = -math.inf
        self.momentum = Momentum(
            dynamics, topology, self.slots, self.meter, self.codec.mixes, follow
        )
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
        """Every neighbour has greeted us, or is given up."""
        return all(peer.greeted or peer.state == "dead" for peer in self.peers.values())

    def time(self, now_s: float) -> float:
        return self.context.clock.time(now_s)

    # events

    def start(self, now_s: float) -> None:
        for peer in self.peers.values():
            peer.since_s = now_s
        self.context.clock.advance(0, now_s)
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
        self._watch(now_s)
        self._contact(now_s)
        self.exchanges.retry(self.peers, now_s)
        if not self.exchanges.open:  # only then is this worker ready to be merged
            self.merging.poll(now_s)

    def wake_s(self, now_s: float) -> float:
        """When `poll` next has something to do, if nothing else happens before."""
        clock = self.context.clock
        contact_s = math.inf if self.finished else clock.when(self._agenda.next_time)
        merge_s = math.inf if self.exchanges.open else self.merging.next_s()
        return min(self._beat_at_s, contact_s, self.exchanges.next_s(), merge_s)

    def wake_step(self) -> float:
        """The step at whose end `poll` has something to do."""
        return math.inf if self.finished else self._agenda.next_time

    def receive(self, packet: m.Packet, now_s: float) -> None:
        """A packet from a peer. What cannot be ours is counted and dropped."""
        message = packet.message
        self.context.budget.refill(now_s)
        self.context.stats.bytes_received += packet.nbytes
        peer = self.peers.get(message.src)
        if isinstance(message, m.Refuse):
            self.refused(message.src, f"worker {message.src} refuses: {message.reason}", now_s)
        elif message.dst != self.me or message.src == self.me:
            self._refuse(message, f"worker {message.dst} was meant, this is worker {self.me}")
        elif packet.damaged:
            self._damaged(message, now_s)
        elif isinstance(message, m.Wave):
            self.merging.receive(message, packet.payload, now_s)
        elif isinstance(message, m.Hello):
            self._on_hello(message, now_s)
        elif message.src in self.merging.kin:
            self.merging.kin[message.src].hear(now_s)
        elif peer is None or self._stale(peer, message, now_s):
            self.context.stats.refused += 1
            if peer is not None:
                self._greet(peer, now_s)
        else:
            self._heard(peer, now_s)
            self._dispatch(peer, packet, now_s)
            self.momentum.follow(self.time(now_s), self.exchanges.delay)

    def _damaged(self, message: m.Message, now_s: float) -> None:
        """Counted and dropped: it will be asked for again."""
        self.context.stats.damaged += 1
        kind = type(message).__name__.lower()
        self.context.trace("damaged", now_s, peer=message.src, what=kind)

    def _stale(self, peer: Peer, message: m.Message, now_s: float) -> bool:
        """Whether it is of the peer's former self, or for ours."""
        if isinstance(message, m.Addressed) and message.to_epoch != self.context.epoch:
            kind = type(message).__name__.lower()
            self.context.trace("refused", now_s, why=f"a {kind} for this worker's former self")
            return True
        return message.epoch != peer.epoch

    def _dispatch(self, peer: Peer, packet: m.Packet, now_s: float) -> None:
        message, payload = packet
        if isinstance(message, m.Request):
            assert payload is not None
            refusal = "merging" if self.merging.started else ""
            self.exchanges.on_request(peer, message, payload, now_s, refusal)
        elif isinstance(message, m.Reply):
            assert payload is not None
            self.exchanges.on_reply(peer, message, payload, now_s)
        elif isinstance(message, m.Decline):
            self.exchanges.on_decline(peer, message, now_s)
        elif isinstance(message, m.Settled):
            self.exchanges.on_settled(peer, message)
        elif isinstance(message, m.Beat):
            pulse.felt(self.context, peer, message, now_s)
        elif isinstance(message, m.Gone):
            peer.state = "dead"
            self.context.trace("fault", now_s, what="peer dead", peer=peer.id, why=message.reason)
            self._bury(peer, now_s)

    # contacts and momentum

    def _contact(self, now_s: float) -> None:
        if self.finished:
            return
        steps = self.context.clock.steps
        progress = None if not self.steps else min(1.0, steps / self.steps)
        for peer in self._agenda.due(self.time(now_s), progress, suspended(self.peers)):
            self.exchanges.start(self.peers[peer], now_s)

    def refresh(self, now_s: float) -> None:
        """Let every chunk drift to now: before a gradient is taken."""
        self.slots.refresh(self.time(now_s))

    # greetings and signs of life

    def _greet(self, peer: Peer, now_s: float, answering: m.Hello | None = None) -> None:
        self.context.send(
            peer.id, m.Hello, answer=answering is None, to_epoch=peer.epoch,
            asked_s=answering.asked_s if answering else now_s, **asdict(self.identity),
        )  # fmt: skip

    def _on_hello(self, hello: m.Hello, now_s: float) -> None:
        problem = self._mismatch(hello)
        if problem:
            self._refuse(hello, problem)
            if hello.src in self.peers and not self.peers[hello.src].greeted:
                self.context.fail(PeerRefused(problem))
            return
        peer = self.peers[hello.src]
        if hello.epoch > peer.epoch:
            self._renew(peer, hello.epoch, now_s)
        elif hello.epoch < peer.epoch:
            return  # of its former self
        self._heard(peer, now_s)
        if hello.answer:
            self._greet(peer, now_s, hello)
        elif hello.to_epoch == self.context.epoch and not peer.met:
            peer.round_trip.measure(now_s - hello.asked_s)

    def _renew(self, peer: Peer, epoch: int, now_s: float) -> None:
        """The peer appears, or has restarted and knows nothing of what was before."""
        if peer.greeted:
            self.exchanges.part(peer, "the peer has restarted", now_s)
            self.exchanges.coder.forget(peer.id)
            self.context.trace("fault", now_s, what="peer restarted", peer=peer.id)
        peer.epoch = epoch
        peer.answers.begin(-1)

    def _mismatch(self, hello: m.Hello) -> str | None:
        if hello.src not in self.peers:
            return f"worker {hello.src} is not a neighbour of worker {self.me} in this topology"
        return self.identity.difference(self.me, hello)

    def refused(self, by: int, why: str, now_s: float, final: bool = True) -> None:
        """`by` will not talk to us. Fatal if it is one that we dialled (the higher worker of two
        does) and have not met; else it is noted: a stranger may have said it. What is not `final`
        may pass, and is fatal if it has not when the peer is given up."""
        self.context.stats.refused += 1
        self.context.trace("refused", now_s, why=why)
        peer = self.peers.get(by)
        if by < self.me and peer is not None and peer.state == "expected":
            peer.doubt = why
            if final:
                self.context.fail(PeerRefused(why))

    def _refuse(self, message: m.Message, reason: str) -> None:
        self.context.stats.refused += 1
        self.context.send(message.src, m.Refuse, reason=reason)

    def _heard(self, peer: Peer, now_s: float) -> None:
        if peer.hear(now_s):
            self.context.trace("heard again", now_s, peer=peer.id)

    def _watch(self, now_s: float) -> None:
        late_s = now_s - self._beat_at_s
        if late_s < 0:
            return
        self._beat_at_s = now_s + self.context.limits.beat_s
        for peer in self.peers.values():
            if peer.met:
                pulse.feel(self.context, peer, now_s)
            elif peer.state != "dead":
                self._greet(peer, now_s)
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
        self.context.budget.refill(now_s)
        self.refresh(now_s)
        self.exchanges.check(vector)
        reduction = self.merging.begin(round, vector, weight, now_s)
        self.poll(now_s)
        return reduction
