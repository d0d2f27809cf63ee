"""Both halves of every exchange of one worker: what to start, what to answer, what to give up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from decent.errors import ProtocolError, RuntimeFault
from decent.worker import messages as m
from decent.worker.clock import RateMeter
from decent.worker.codec import Codec
from decent.worker.context import Context
from decent.worker.exchange import Exchange
from decent.worker.mixing import NOT_FINITE, Mixing
from decent.worker.peers import Peer
from decent.worker.slots import Overwritten, Slots
from decent.worker.window import Whole, Window

CROSSING = "both ends started at once"
PATIENCE = 4
"""pauses after which a peer that has not settled an exchange is taken to have"""


class Exchanges:
    """Starts, answers and settles exchanges between `slots` and the peers' slots."""

    def __init__(self, context: Context, slots: Slots, meter: RateMeter, codec: Codec) -> None:
        self.context, self.slots = context, slots
        self.mixing = Mixing(context, slots, meter, codec)
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
            window=self._window(peer),
            looks=not peer.blind and self.mixing.shows(peer.id),
        )
        exchange.window.begin()
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
        for chunk in self._affordable(peer, exchange):
            said = None
            if exchange.looks:
                self.mixing.show(chunk, now_s)
            else:
                said = self.mixing.say(peer.id, chunk, now_s)
            exchange.fly(chunk, said, now_s)
            self._ask(peer, exchange, chunk, now_s)

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

    def _window(self, peer: Peer) -> Window:
        """Through shared memory there is no link to fill."""
        return Whole() if not peer.blind and self.context.near.sees(peer.id) else peer.window

    def _ask(
        self, peer: Peer, exchange: Exchange, chunk: int, now_s: float, again: bool = False
    ) -> None:
        flight = exchange.flying[chunk]
        if flight.said is None and again:  # it has not seen it
            peer.blind, exchange.looks = True, False
            flight.said = self.mixing.say(peer.id, chunk, now_s)
        self.context.send(
            peer.id,
            m.Look if flight.said is None else m.Request,
            None if flight.said is None else flight.said.payload,
            to_epoch=peer.epoch,
            seq=exchange.seq,
            chunk=chunk,
            asked_s=now_s,
            settled=exchange.settled,
            mix=exchange.mix,
        )
        self.context.trace("request", now_s, peer=exchange.peer, seq=exchange.seq, chunk=chunk)

    def on_request(self, peer: Peer, packet: m.Packet, now_s: float, refusal: str = "") -> None:
        """Answer or decline, once and for all: what comes again gets the same word. Never waits."""
        request, answers = packet.message, peer.answers
        assert isinstance(request, m.Asking)
        if request.seq > answers.seq:
            answers.begin(request.seq)
        if request.seq < answers.seq or request.chunk in answers.answered:
            self._repeat(peer, request)
            return
        if packet.payload is None:  # we cannot see what we should: it will be sent
            self.context.stats.refused += 1
            return
        answers.settle(request.settled)
        refusal = refusal or answers.crowded(self.context.limits.window)
        answers.refusal = answers.refusal or refusal or self._problem(request)
        try:
            self._answer(peer, packet, request, now_s)
        except ProtocolError as error:
            answers.refusal = str(error)
            self._decline(peer, request, answers.refusal, now_s)
        except Overwritten:
            self.context.stats.refused += 1

    def _answer(self, peer: Peer, packet: m.Packet, request: m.Asking, now_s: float) -> None:
        if peer.answers.refusal:
            raise ProtocolError(peer.answers.refusal)
        payload = self.mixing.answer(peer.id, request, packet, now_s)
        kind = m.Change if self.mixing.coder.exact else m.Reply
        peer.answers.remember(request.chunk, kind, payload, now_s)
        self.context.stats.answered += 1 / self.slots.chunks
        self.context.trace("reply", now_s, peer=peer.id, seq=request.seq, chunk=request.chunk)
        self._reply(peer, request)

    def _repeat(self, peer: Peer, request: m.Asking) -> None:
        """Answer from memory; not at all if the reply is known to have come."""
        self.context.stats.duplicates += 1
        if request.seq == peer.answers.seq and request.chunk in peer.answers.replies:
            self._reply(peer, request)

    def _problem(self, request: m.Asking) -> str:
        slots = self.slots
        if request.src in self.open and self.context.me < request.src:
            return CROSSING
        if not 0 <= request.chunk < slots.chunks:
            return f"there is no chunk {request.chunk} of {slots.chunks}"
        if len(request.mix) != len(slots.system.slots) or not np.isfinite(request.mix).all():
            return f"coefficients {request.mix} for slots {slots.system.slots}"
        return ""

    def _reply(self, peer: Peer, request: m.Asking) -> None:
        kind, payload = peer.answers.replies[request.chunk]
        self.context.send(
            peer.id, kind, payload, to_epoch=peer.epoch, seq=request.seq, chunk=request.chunk,
            asked_s=request.asked_s,
        )  # fmt: skip

    def _decline(self, peer: Peer, request: m.Asking, reason: str, now_s: float) -> None:
        self.context.send(
            peer.id,
            m.Decline,
            to_epoch=peer.epoch,
            seq=request.seq,
            chunk=request.chunk,
            reason=reason,
        )
        self.context.trace("decline", now_s, peer=peer.id, seq=request.seq, reason=reason)

    def on_reply(self, peer: Peer, packet: m.Packet, now_s: float) -> None:
        """Apply our half of one chunk, once."""
        reply, exchange = packet.message, self.open.get(peer.id)
        assert isinstance(reply, m.Answer)
        if exchange is None or exchange.seq != reply.seq or reply.chunk not in exchange.flying:
            self.context.stats.duplicates += 1
            return
        ours = exchange.flying[reply.chunk].said
        try:
            squared = self.mixing.apply(peer.id, packet, ours, exchange.mix, now_s)
        except ProtocolError as error:
            self.abandon(peer, f"chunk {reply.chunk}: {error}", now_s)
            return
        except Overwritten:  # it will be asked for again
            self.context.stats.refused += 1
            return
        took_s = now_s - reply.asked_s
        exchange.land(reply.chunk, self.mixing.coder.size(reply.chunk), squared, took_s)
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
            self.mixing.diagnose(decline.chunk, exchange.flying[decline.chunk].said, now_s)
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
                self._ask(peers[exchange.peer], exchange, chunk, now_s, again=True)

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
