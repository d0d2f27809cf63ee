"""Both halves of every exchange of one worker: what to start, what to answer, what to give up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from decent.errors import ProtocolError, RuntimeFault
from decent.worker import messages as m
from decent.worker.clock import RateMeter
from decent.worker.codec import Array, Codec, Said
from decent.worker.coder import Coder
from decent.worker.context import Context
from decent.worker.exchange import Exchange
from decent.worker.peers import Peer
from decent.worker.slots import Slots

CROSSING = "both ends started at once"
NOT_FINITE = "the difference is not finite"
PATIENCE = 4
"""pauses after which a peer that has not settled an exchange is taken to have"""


class Exchanges:
    """Starts, answers and settles exchanges between `slots` and the peers' slots."""

    def __init__(self, context: Context, slots: Slots, meter: RateMeter, codec: Codec) -> None:
        self.context, self.slots, self.meter = context, slots, meter
        self.coder = Coder(codec, slots, context.stats)
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
            round_trip=peer.round_trip,
            window=peer.window,
        )
        peer.window.begin()
        peer.seq += 1
        self.open[peer.id] = exchange
        self.context.stats.started += 1
        self._fill(peer, exchange, now_s)

    def _skip(self, peer: Peer, reason: str, now_s: float) -> None:
        self.context.stats.skipped[reason] += 1
        self.context.trace("skip", now_s, peer=peer.id, reason=reason)

    def _obstacle(self, peer: Peer, now_s: float) -> str | None:
        if peer.state != "alive":
            return f"peer {peer.state}"
        if not peer.met:
            return "peer expected"
        patience_s = PATIENCE * peer.round_trip.pause_s(self.context.limits)
        if peer.id in self.open or peer.answers.busy(now_s, patience_s):
            return "edge busy"
        if len(self.open) >= self.context.limits.max_open:
            return "too many open"
        if self.context.limits.bandwidth < math.inf and self._backlog() > 1:
            return "bandwidth"
        return None

    def _fill(self, peer: Peer, exchange: Exchange, now_s: float) -> None:
        time = self.context.clock.time(now_s)
        for chunk in self._affordable(peer, exchange):
            said = self.coder.ask(peer.id, chunk, self.slots.snapshot(chunk, time))
            exchange.fly(chunk, said, now_s)
            self._sent(said)
            self._request(peer, exchange, chunk, now_s)

    def _affordable(self, peer: Peer, exchange: Exchange) -> Iterator[int]:
        """Chunks to send now; for more of them it stands in line."""
        chunks = exchange.sendable()
        while self.context.budget.open:
            if (chunk := next(chunks, None)) is None:
                return
            yield chunk
        self.context.budget.wait(peer.id)

    def release(self, peers: Mapping[int, Peer], now_s: float) -> None:
        """Let those in line have their turns, as far as the budget goes."""
        budget = self.context.budget
        while budget.line and budget.open:
            who = budget.line.popleft()
            if isinstance(who, m.Packet):
                self.context.leave(who)
            elif who in self.open:
                self._fill(peers[who], self.open[who], now_s)

    def _backlog(self) -> float:
        """Chunks that wait for the budget, in exchanges."""
        unsent = sum(exchange.chunks - exchange.sent for exchange in self.open.values())
        return float((self.context.budget.held + unsent) / self.slots.chunks)

    def _request(self, peer: Peer, exchange: Exchange, chunk: int, now_s: float) -> None:
        self.context.send(
            peer.id,
            m.Request,
            exchange.flying[chunk].said.payload,
            to_epoch=peer.epoch,
            seq=exchange.seq,
            chunk=chunk,
            settled=exchange.settled,
            mix=exchange.mix,
        )
        self.context.trace("request", now_s, peer=exchange.peer, seq=exchange.seq, chunk=chunk)

    def on_request(
        self, peer: Peer, request: m.Request, payload: Array, now_s: float, refusal: str = ""
    ) -> None:
        """Answer or decline, once and for all: what comes again gets the same word. Never waits."""
        answers = peer.answers
        if request.seq > answers.seq:
            answers.begin(request.seq)
        if request.seq < answers.seq or request.chunk in answers.answered:
            self._repeat(peer, request)
            return
        answers.settle(request.settled)
        answers.refusal = answers.refusal or refusal or self._problem(request)
        ours = None if answers.refusal else self._answer(peer, request, payload, now_s)
        if ours is None:
            self._decline(peer, request, answers.refusal, now_s)
            return
        answers.remember(request.chunk, ours.payload, now_s)
        self.context.stats.answered += 1 / self.slots.chunks
        self.context.trace("reply", now_s, peer=peer.id, seq=request.seq, chunk=request.chunk)
        self._sent(ours)
        self._reply(peer, request, ours.payload)

    def _repeat(self, peer: Peer, request: m.Request) -> None:
        """Answer from memory; not at all if the reply is known to have come."""
        self.context.stats.duplicates += 1
        if request.seq == peer.answers.seq and request.chunk in peer.answers.replies:
            self._reply(peer, request, peer.answers.replies[request.chunk])

    def _problem(self, request: m.Request) -> str:
        slots = self.slots
        if request.src in self.open and self.context.me < request.src:
            return CROSSING
        if not 0 <= request.chunk < slots.chunks:
            return f"there is no chunk {request.chunk} of {slots.chunks}"
        if len(request.mix) != len(slots.system.slots) or not np.isfinite(request.mix).all():
            return f"coefficients {request.mix} for slots {slots.system.slots}"
        return ""

    def _answer(self, peer: Peer, request: m.Request, payload: Array, now_s: float) -> Said | None:
        """Mix our half of one chunk; what we say of it, or None with the refusal noted."""
        try:
            theirs = self.coder.hear(payload, request.chunk)
        except ProtocolError as error:
            peer.answers.refusal = f"chunk {request.chunk}: {error}"
            return None
        time = self.context.clock.time(now_s)
        ours = self.coder.answer(self.slots.snapshot(request.chunk, time), theirs)
        if self._mix(peer, request.chunk, ours, theirs, request.mix, now_s) is None:
            peer.answers.refusal = NOT_FINITE
            self._diagnose(request.chunk, ours, now_s)
            return None
        return ours

    def _mix(
        self, peer: Peer, chunk: int, ours: Said, theirs: Said, mix: tuple[float, ...], now_s: float
    ) -> float | None:
        """Our half of one chunk; ‖theirs − ours‖², or None with nothing changed."""
        time = self.context.clock.time(now_s)
        difference = self.coder.difference(chunk, ours, theirs)
        squared = self.slots.add(chunk, time, difference, np.array(mix))
        if squared is not None:
            self.coder.agree(peer.id, chunk, ours, theirs)
            self.context.stats.values_mixed += difference.size
            self.meter.count(ours.values.size / self.slots.values, time)
        return squared

    def _reply(self, peer: Peer, request: m.Request, payload: Array) -> None:
        self.context.send(
            peer.id, m.Reply, payload, to_epoch=peer.epoch, seq=request.seq, chunk=request.chunk
        )

    def _decline(self, peer: Peer, request: m.Request, reason: str, now_s: float) -> None:
        self.context.send(
            peer.id,
            m.Decline,
            to_epoch=peer.epoch,
            seq=request.seq,
            chunk=request.chunk,
            reason=reason,
        )
        self.context.trace("decline", now_s, peer=peer.id, seq=request.seq, reason=reason)

    def on_reply(self, peer: Peer, reply: m.Reply, payload: Array, now_s: float) -> None:
        """Apply our half of one chunk, once."""
        exchange = self.open.get(peer.id)
        if exchange is None or exchange.seq != reply.seq or reply.chunk not in exchange.flying:
            self.context.stats.duplicates += 1
            return
        ours = exchange.flying[reply.chunk].said
        try:
            theirs = self.coder.hear(payload, reply.chunk, ours)
        except ProtocolError as error:
            self.abandon(peer, f"chunk {reply.chunk}: {error}", now_s)
            return
        squared = self._mix(peer, reply.chunk, ours, theirs, exchange.mix, now_s)
        if squared is None:
            self.abandon(peer, NOT_FINITE, now_s)
            self._diagnose(reply.chunk, ours, now_s)
            return
        span = self.slots.span(reply.chunk)
        exchange.land(reply.chunk, span.stop - span.start, squared, now_s)
        self.context.trace("apply", now_s, peer=peer.id, seq=exchange.seq, chunk=reply.chunk)
        self._fill(peer, exchange, now_s)
        if exchange.complete:
            self._complete(peer, exchange, now_s)

    def on_decline(self, peer: Peer, decline: m.Decline, now_s: float) -> None:
        """That chunk is not mixed; the others in flight have their own answers coming."""
        exchange = self.open.get(peer.id)
        if exchange is None or exchange.seq != decline.seq or decline.chunk not in exchange.flying:
            return
        if decline.reason == NOT_FINITE:
            self._diagnose(decline.chunk, exchange.flying[decline.chunk].said, now_s)
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

    def part(self, peer: Peer, reason: str, now_s: float) -> None:
        """The peer is dead, or another now. What it may not have mixed counts as mixed here: that
        too is settled by rule, and traced."""
        self.abandon(peer, reason, now_s)
        if peer.answers.replies:
            self.context.trace(
                "fault", now_s, what="answers not settled", peer=peer.id, seq=peer.answers.seq,
                reason=reason, chunks=sorted(peer.answers.replies),
            )  # fmt: skip

    def retry(self, peers: Mapping[int, Peer], now_s: float) -> None:
        self.release(peers, now_s)
        for exchange in self.open.values():
            for chunk in exchange.overdue(now_s):
                self.context.stats.repeated += 1
                self._request(peers[exchange.peer], exchange, chunk, now_s)

    def next_s(self) -> float:
        retry_s = min((each.retry_at_s() for each in self.open.values()), default=math.inf)
        return min(float(retry_s), self.context.budget.next_s())

    def _complete(self, peer: Peer, exchange: Exchange, now_s: float) -> None:
        if exchange.mixed:
            self.context.send(peer.id, m.Settled, to_epoch=peer.epoch, seq=exchange.seq)
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

    def _sent(self, said: Said) -> None:
        self.context.stats.models_sent += said.values.size / self.slots.values

    def _diagnose(self, chunk: int, said: Said, now_s: float) -> None:
        """Where it was our own message that was not finite, say why and stop."""
        values = self.slots.snapshot(chunk, self.context.clock.time(now_s))
        self.check(values)
        if np.isfinite(values).all() and not np.isfinite(said.values).all():
            self.context.fail(
                RuntimeFault(
                    f"worker {self.context.me} has values up to {np.abs(values).max():.3g}, and "
                    f"codec {self.coder.codec.title!r} cannot hold them: choose another"
                )
            )

    def check(self, ours: Array) -> None:
        """Where our own values are not finite, say so and stop."""
        if not np.isfinite(ours).all():
            self.context.fail(
                RuntimeFault(
                    f"worker {self.context.me}'s parameters are not finite at step "
                    f"{self.context.clock.steps}: training has diverged; try a lower learning rate"
                )
            )
