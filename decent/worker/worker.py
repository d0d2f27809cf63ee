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
from contextlib import AbstractContextManager

from decent.dynamics import Dynamics, system_on
from decent.errors import DynamicsError, PeerRefused
from decent.schedule import Agenda, Never, Schedule, View
from decent.topology import Topology
from decent.worker import messages as m
from decent.worker.clock import Clock, RateMeter, StepClock
from decent.worker.context import Context, Record
from decent.worker.exchanges import Exchanges
from decent.worker.limits import Limits
from decent.worker.merging import Merging
from decent.worker.peers import Peer
from decent.worker.reduction import Reduction
from decent.worker.slots import Array, Slots

FOLLOW = 0.05
"""Relative change of the achieved rate that is worth new constants of the dynamics."""


class Worker:
    """Worker `me` of `topology`. `state` (S, d) is changed in place; row 0 is the live vector.

    `digest` names the model's layout: peers with another are refused in words. `steps` is the
    planned number of local steps, if known (schedules may look at progress). Without `follow` the
    momentum counts on the nominal rates whatever is achieved, as the papers do.
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
    ) -> None:
        self.topology, self.dynamics, self.digest, self.steps = topology, dynamics, digest, steps
        self.context = Context(
            me, run, epoch, limits or Limits(), clock or StepClock(), record or (lambda event: None)
        )
        system = system_on(dynamics, topology)
        if not (system.mix.any() and system.message.any()) and not isinstance(schedule, Never):
            raise DynamicsError(
                f"dynamics {dynamics.name!r} with mix {system.mix.tolist()} and message "
                f"{system.message.tolist()}", "an exchange that mixes something",
                "give a mix and a message that are not 0, or use the schedule 'never'",
            )  # fmt: skip
        self.slots = Slots(state, system, self.context.limits.chunk, guard)
        rates = topology.neighbours(me)
        self.meter = RateMeter(sum(rates.values()))
        self.exchanges = Exchanges(self.context, self.slots, self.meter)
        self.peers = {peer: Peer(peer, 0.0) for peer in rates}
        self._agenda = Agenda(schedule, View.of(topology, me, seed))
        self.merging = Merging(self.context, topology, self.peers)
        self._beat_at_s = -math.inf
        self._follows, self._followed = follow, 1.0
        self.finished = False  # no more steps will come: start nothing

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
        self._watch(now_s)
        self._contact(now_s)
        self.exchanges.retry(now_s)
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
        self.context.stats.bytes_received += packet.nbytes
        peer = self.peers.get(message.src)
        if message.dst != self.me or message.src == self.me:
            self._refuse(message, f"worker {message.dst} was meant, this is worker {self.me}")
        elif isinstance(message, m.Refuse):
            self.context.fail(PeerRefused(f"worker {message.src} refuses: {message.reason}"))
        elif isinstance(message, m.Wave):
            self.merging.receive(message, packet.payload, now_s)
        elif isinstance(message, m.Hello):
            self._on_hello(message, now_s)
        elif message.src in self.merging.kin:
            self.merging.kin[message.src].hear(now_s)
        elif peer is None or message.epoch != peer.epoch:
            self.context.stats.refused += 1
            if peer is not None:
                self._greet(peer.id, answer=True)
        else:
            self._heard(peer, now_s)
            self._dispatch(peer, packet, now_s)
            self._follow(now_s)

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
        for peer in self._agenda.due(self.time(now_s), progress):
            self.exchanges.start(self.peers[peer], now_s)

    def _follow(self, now_s: float) -> None:
        """Momentum at the rate that is really achieved (χ ∝ 1/rate), and up to twice slower where
        an exchange takes as long as two of them are apart."""
        if not self._follows:
            return
        ratio = self.meter.ratio(self.time(now_s))
        late = min(1.0, self.exchanges.delay * self.meter.nominal / 2)
        pace = ratio / (1 + late)
        if abs(pace - self._followed) > FOLLOW * self._followed:
            self._followed = pace
            chi_1, chi_2 = self.topology.chi_1 / pace, self.topology.chi_2 / pace
            self.slots.system = self.dynamics.system(chi_1, chi_2)

    def refresh(self, now_s: float) -> None:
        """Let every chunk drift to now: before a gradient is taken."""
        self.slots.refresh(self.time(now_s))

    # greetings and signs of life

    def _greet(self, to: int, answer: bool) -> None:
        slots = self.slots
        self.context.send(
            to, m.Hello, workers=self.topology.n, digest=self.digest, values=slots.values,
            chunk=slots.chunk, dtype=slots.array.dtype.str, answer=answer,
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
            if peer.greeted:
                self.exchanges.abandon(peer, "the peer has restarted", now_s)
                self.context.trace("fault", now_s, what="peer restarted", peer=peer.id)
            peer.epoch, peer.answers.seq = hello.epoch, -1
            peer.answers.begin(-1)
        self._heard(peer, now_s)
        if hello.answer:
            self._greet(peer.id, answer=False)

    def _mismatch(self, hello: m.Hello) -> str | None:
        ours = self.slots
        if hello.src not in self.peers:
            return f"worker {hello.src} is not a neighbour of worker {self.me} in this topology"
        for what, theirs, mine in (
            ("workers in the run", hello.workers, self.topology.n),
            ("parameters in the model", hello.values, ours.values),
            ("values in a chunk", hello.chunk, ours.chunk),
            ("number format", hello.dtype, ours.array.dtype.str),
            ("layout of the model", hello.digest, self.digest),
        ):
            if theirs != mine:
                return f"{what}: {theirs} at worker {hello.src}, {mine} at worker {self.me}"
        return None

    def _refuse(self, message: m.Message, reason: str) -> None:
        self.context.stats.refused += 1
        if not isinstance(message, m.Refuse):
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
            if peer.greeted:
                self.context.send(peer.id, m.Beat)
            elif peer.state != "dead":
                self._greet(peer.id, answer=True)
        self.merging.beat()
        for peer in (*self.peers.values(), *self.merging.kin.values()):
            if self.context.limits.silent_s < late_s < math.inf:
                peer.excuse(late_s)
            change = peer.judge(now_s, self.context.limits)
            if change:
                self.context.trace("fault", now_s, what=f"peer {change}", peer=peer.id)
            if change == "dead":
                self._bury(peer, now_s)

    def _bury(self, peer: Peer, now_s: float) -> None:
        self.exchanges.abandon(peer, "the peer is dead", now_s)
        self.merging.exclude({peer.id}, now_s)

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
        self.exchanges.check(vector)
        reduction = self.merging.begin(round, vector, weight, now_s)
        self.poll(now_s)
        return reduction
