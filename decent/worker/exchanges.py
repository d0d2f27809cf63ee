"""Both halves of every exchange of one worker: what to start, what to answer, what to give up."""

from __future__ import annotations

import math

import numpy as np

from decent.errors import RuntimeFault
from decent.worker import messages as m
from decent.worker.clock import RateMeter
from decent.worker.context import Context
from decent.worker.exchange import Exchange
from decent.worker.peers import Peer
from decent.worker.slots import Array, Slots

CROSSING = "both ends started at once"
NOT_FINITE = "the difference is not finite"


class Exchanges:
    """Starts, answers and settles exchanges between `slots` and the peers' slots."""

    def __init__(self, context: Context, slots: Slots, meter: RateMeter) -> None:
        self.context, self.slots, self.meter = context, slots, meter
        self.open: dict[int, Exchange] = {}
        self.delay = 0.0  # local time an exchange takes, start to end (average)

    def start(self, peer: Peer, now_s: float) -> None:
        """Begin an exchange with `peer`, or count why not."""
        reason = self._obstacle(peer, now_s)
        if reason:
            self._skip(peer, reason, now_s)
            return
        exchange = Exchange(
            peer=peer.id,
            seq=peer.seq,
            mix=tuple(float(b) for b in self.slots.system.mix),
            chunks=self.slots.chunks,
            started_s=now_s,
            limits=self.context.limits,
        )
        peer.seq += 1
        self.open[peer.id] = exchange
        self.context.stats.started += 1
        self._fill(exchange, now_s)

    def _skip(self, peer: Peer, reason: str, now_s: float) -> None:
        self.context.stats.skipped[reason] += 1
        self.context.trace("skip", now_s, peer=peer.id, reason=reason)

    def _obstacle(self, peer: Peer, now_s: float) -> str | None:
        if peer.state != "alive":
            return f"peer {peer.state}"
        if peer.id in self.open or peer.answers.busy(now_s, self.context.limits):
            return "edge busy"
        if len(self.open) >= self.context.limits.max_open:
            return "too many open"
        return None

    def _fill(self, exchange: Exchange, now_s: float) -> None:
        time = self.context.clock.time(now_s)
        for chunk in exchange.sendable():
            exchange.fly(chunk, self.slots.snapshot(chunk, time), now_s)
            self._request(exchange, chunk, now_s)

    def _request(self, exchange: Exchange, chunk: int, now_s: float) -> None:
        self.context.send(
            exchange.peer,
            m.Request,
            exchange.flying[chunk].snapshot,
            seq=exchange.seq,
            chunk=chunk,
            settled=exchange.settled,
            mix=exchange.mix,
        )
        self._sent(chunk)
        self.context.trace("request", now_s, peer=exchange.peer, seq=exchange.seq, chunk=chunk)

    def on_request(
        self, peer: Peer, request: m.Request, theirs: Array, now_s: float, refusal: str = ""
    ) -> None:
        """Answer or decline, once and for all: what comes again gets the same word. Never waits."""
        answers = peer.answers
        if request.seq > answers.seq:
            answers.begin(request.seq)
        if request.seq < answers.seq or request.chunk in answers.answered:
            self._repeat(peer, request)
            return
        answers.settle(request.settled)
        answers.refusal = answers.refusal or refusal or self._problem(request, theirs)
        ours = None if answers.refusal else self._answer(request, theirs, now_s)
        if ours is None:
            answers.refusal = answers.refusal or NOT_FINITE
            self._decline(peer.id, request, answers.refusal, now_s)
            return
        answers.remember(request.chunk, ours, now_s)
        self._mixed(request.chunk, now_s)
        self.context.stats.answered += 1 / self.slots.chunks
        self.context.trace("reply", now_s, peer=peer.id, seq=request.seq, chunk=request.chunk)
        self._reply(peer.id, request, ours)

    def _repeat(self, peer: Peer, request: m.Request) -> None:
        """Answer from memory; not at all if the reply is known to have come."""
        self.context.stats.duplicates += 1
        if request.seq == peer.answers.seq and request.chunk in peer.answers.replies:
            self._reply(peer.id, request, peer.answers.replies[request.chunk])

    def _problem(self, request: m.Request, theirs: Array) -> str:
        slots = self.slots
        if request.src in self.open and self.context.me < request.src:
            return CROSSING
        if not 0 <= request.chunk < slots.chunks:
            return f"there is no chunk {request.chunk} of {slots.chunks}"
        span = slots.span(request.chunk)
        if theirs.size != span.stop - span.start:
            return f"chunk {request.chunk} of {theirs.size} values"
        if len(request.mix) != len(slots.system.slots) or not np.isfinite(request.mix).all():
            return f"coefficients {request.mix} for slots {slots.system.slots}"
        return ""

    def _answer(self, request: m.Request, theirs: Array, now_s: float) -> Array | None:
        time = self.context.clock.time(now_s)
        ours = self.slots.answer(request.chunk, time, theirs, np.array(request.mix))
        if ours is None:
            self.check(self.slots.snapshot(request.chunk, time))
        return ours

    def _reply(self, to: int, request: m.Request, ours: Array) -> None:
        self.context.send(to, m.Reply, ours, seq=request.seq, chunk=request.chunk)
        self._sent(request.chunk)

    def _decline(self, to: int, request: m.Request, reason: str, now_s: float) -> None:
        self.context.send(to, m.Decline, seq=request.seq, chunk=request.chunk, reason=reason)
        self.context.trace("decline", now_s, peer=to, seq=request.seq, reason=reason)

    def on_reply(self, peer: Peer, reply: m.Reply, theirs: Array, now_s: float) -> None:
        """Apply our half of one chunk, once."""
        exchange = self.open.get(peer.id)
        if exchange is None or exchange.seq != reply.seq or reply.chunk not in exchange.flying:
            self.context.stats.duplicates += 1
            return
        ours = exchange.flying[reply.chunk].snapshot
        if theirs.size != ours.size:
            self.abandon(peer, f"a reply of {theirs.size} values for {ours.size}", now_s)
            return
        difference = theirs - ours
        time = self.context.clock.time(now_s)
        if not self.slots.add(reply.chunk, time, difference, np.array(exchange.mix)):
            self.abandon(peer, NOT_FINITE, now_s)
            self.check(self.slots.snapshot(reply.chunk, time))
            return
        exchange.land(reply.chunk, ours.size, float(np.dot(difference, difference)))
        self._mixed(reply.chunk, now_s)
        self.context.trace("apply", now_s, peer=peer.id, seq=exchange.seq, chunk=reply.chunk)
        self._fill(exchange, now_s)
        if exchange.complete:
            self._complete(peer, exchange, now_s)

    def on_decline(self, peer: Peer, decline: m.Decline, now_s: float) -> None:
        """That chunk is not mixed; the others in flight have their own answers coming."""
        exchange = self.open.get(peer.id)
        if exchange is None or exchange.seq != decline.seq or decline.chunk not in exchange.flying:
            return
        if decline.reason == NOT_FINITE:
            self.check(exchange.flying[decline.chunk].snapshot)
        exchange.decline(decline.chunk, decline.reason)
        if exchange.complete:
            self._complete(peer, exchange, now_s)

    def on_settled(self, peer: Peer, settled: m.Settled) -> None:
        if settled.seq == peer.answers.seq:
            peer.answers.replies.clear()

    def abandon(self, peer: Peer, reason: str, now_s: float) -> None:
        """Give up what is open with `peer`. Chunks already mixed stay mixed, at both ends; one in
        flight counts as not mixed here, whatever the peer did: settled by rule, and traced."""
        exchange = self.open.pop(peer.id, None)
        if exchange is not None:
            self.context.stats.abandoned += 1
            share = exchange.mixed / self.slots.values
            self.context.trace(
                "fault", now_s, what="exchange abandoned", peer=peer.id, seq=exchange.seq,
                reason=reason, mixed=share, in_flight=sorted(exchange.flying),
            )  # fmt: skip

    def retry(self, now_s: float) -> None:
        for exchange in self.open.values():
            for chunk in exchange.overdue(now_s):
                self.context.stats.repeated += 1
                self._request(exchange, chunk, now_s)

    def next_s(self) -> float:
        return min((exchange.retry_at_s() for exchange in self.open.values()), default=math.inf)

    def _complete(self, peer: Peer, exchange: Exchange, now_s: float) -> None:
        if exchange.mixed:
            self.context.send(peer.id, m.Settled, seq=exchange.seq)
        if exchange.declined == CROSSING and not exchange.mixed:
            del self.open[peer.id]
            self._skip(peer, CROSSING, now_s)
            return
        if exchange.declined:
            self.abandon(peer, f"declined: {exchange.declined}", now_s)
            return
        del self.open[peer.id]
        if exchange.mixed != self.slots.values:
            raise RuntimeFault(
                f"exchange {exchange.seq} with worker {peer.id} ended with {exchange.mixed} of "
                f"{self.slots.values} values mixed"
            )
        stats, clock = self.context.stats, self.context.clock
        stats.completed += 1
        stats.last_distance = math.sqrt(exchange.squared)
        took = clock.time(now_s) - clock.time(exchange.started_s)
        self.delay += 0.2 * (took - self.delay)

    def _sent(self, chunk: int) -> None:
        span = self.slots.span(chunk)
        self.context.stats.models_sent += (span.stop - span.start) / self.slots.values

    def _mixed(self, chunk: int, now_s: float) -> None:
        span = self.slots.span(chunk)
        size = span.stop - span.start
        self.context.stats.values_mixed += size
        self.meter.count(size / self.slots.values, self.context.clock.time(now_s))

    def check(self, ours: Array) -> None:
        """Where our own values are not finite, say so and stop."""
        if not np.isfinite(ours).all():
            self.context.fail(
                RuntimeFault(
                    f"worker {self.context.me}'s parameters are not finite at step "
                    f"{self.context.clock.steps}: training has diverged; try a lower learning rate"
                )
            )
