"""The communicator: owns the sockets and drives the worker's protocol beside the training process.

`python -m decent.runtime.communicator LINE_FD BOARD_FD`, started by `link.start`. It sleeps until a
message, a word of the training process, or the worker's next event comes; it never spins. It ends
with its training process, whatever ends that.

Said to it:  wake · merge (round, weight, vector) · cut · close
It says:     ready (address, steps) · merged (round, among, vector) · cut (since, index) · stats
             · error (kind, text)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from decent.dynamics import system_on
from decent.errors import DecentError, PeerRefused, ProtocolError, WrongKey
from decent.runtime import link, security
from decent.runtime.board import Board
from decent.runtime.dialler import Dialler
from decent.runtime.gate import ChunkGate
from decent.runtime.records import Records
from decent.runtime.rendezvous import Rendezvous
from decent.runtime.wire import Wire
from decent.transport.curve import Curve, keys_in, new_keys
from decent.transport.zeromq import Arrival, Refusal, ZeroMQ
from decent.worker import Reduction, Worker, frames
from decent.worker import messages as m
from decent.worker.context import TRACED

BATCH = 8
"""messages taken from a connection before others get their turn"""
DRIFT = 0.1
"""share of the momentum that may be pending before the parameters are brought up to date"""
LINGER_S = 10.0
"""how long a worker that holds the result waits for the others to have it"""
PUBLISH_S = 0.1


class Communicator:
    """One worker's loop: sockets on one side, shared memory and a line on the other."""

    def __init__(self, spec: link.Spec, board: Board, line: Connection) -> None:
        self.spec, self.board, self.line = spec, board, line
        self._origin_s = spec.origin_s
        self.records = Records(spec, board)
        epoch = self.records.epoch
        frame_bytes = max(spec.limits.chunk * np.dtype(spec.dtype).itemsize, frames.HEADER_BYTES)
        name = f"{spec.run}/{spec.me}/{epoch}"
        self.rendezvous = Rendezvous(Path(spec.folder))
        self._keyring = security.Keyring(spec.topology, self.rendezvous)
        curve = self._curve() if spec.encrypt else None
        self.transport = ZeroMQ(name, spec.address, frame_bytes, curve)
        self._wire = Wire(spec, board, self.rendezvous)
        key = None if curve is None else curve.public
        self.rendezvous.publish(spec.me, self.transport.address, self._wire.place, key)
        self._dialler = Dialler(
            spec, self.transport, self.rendezvous, self._keyring,
            lambda peer, why: self.worker.refused(peer, why, self.now(), final=False),
        )  # fmt: skip
        self._gate = ChunkGate(board.fd)
        self.worker = Worker(
            spec.me, spec.topology, spec.dynamics, spec.schedule, board.state,
            seed=spec.seed, run=spec.run, digest=spec.digest, steps=spec.steps, epoch=epoch,
            limits=spec.limits, record=self.records.trace, guard=self._gate, codec=spec.codec,
            ledger=self.records.ledger, checkpoint_every=spec.checkpoint_every,
            near=self._wire.near,
        )  # fmt: skip
        if spec.rejoins:
            self.worker.rejoin(self.records.found, self.now())
        elif self.records.found is not None:
            self.worker.restore(self.records.found, self.now())
        self._merges: dict[int, Reduction] = {}  # asked for and not yet told
        self._ready = False
        self._closing_s = math.inf
        self._parent = os.getppid()
        self._drift_at = self._publish_at_s = -math.inf
        self._system: Any = None
        self.transport.poller.register(line.fileno(), 1)

    def now(self) -> float:
        return time.monotonic() - self._origin_s

    def run(self) -> None:
        """Until closed, or until the training process is gone."""
        self.worker.start(self.now())
        while not self._finished():
            self.serve(1.0)
        self.worker.close(self.now())
        self._say(stats=self.worker.context.stats.as_dict())

    def serve(self, at_most_s: float) -> None:
        """Do what is due, wait for something to happen, and take what has come."""
        self._turn()
        now_s = self.now()
        if self.board.steps < self.board.wake_step:
            wait_s = min(self._wake_s(now_s) - now_s, at_most_s)
            self.transport.poller.poll(max(0, math.ceil(1000 * wait_s)))
        self._listen()
        self._advance()
        for arrival in self.transport.receive(BATCH):
            self._receive(arrival)
            self._flush()
        for refusal in self.transport.refusals():
            self._refused(refusal)

    def stop(self, reason: str) -> None:
        """Say good-bye, if it is for good, and let go of everything."""
        if reason:
            self.worker.leave(reason)
            self._flush()
        self.records.close()
        self.transport.close()

    def _turn(self) -> None:
        """Everything that is due by now."""
        self._advance()
        now_s = self.now()
        self.worker.poll(now_s)
        self._drift(now_s)
        self._flush()
        self._tell(now_s)
        self.board.wake_step = min(self.worker.wake_step(), self._drift_at)
        self.board.cut_step = self.worker.cut_step

    def _advance(self) -> None:
        """Tell the worker of the steps that training has taken meanwhile."""
        if self.board.steps > self.worker.context.clock.steps:
            self.worker.advance(self.board.steps, self.board.stepped_s)

    def _wake_s(self, now_s: float) -> float:
        return min(self.worker.wake_s(now_s), self._closing_s)

    def _finished(self) -> bool:
        """Closed, and nobody can still want a result that is here."""
        if self._closing_s == math.inf:
            return False
        return self.merged or bool(self._merges) or self.now() > self._closing_s

    @property
    def merged(self) -> bool:
        """Whether all that this worker took part in is complete, at everyone."""
        return all(reduction.closed for reduction in self.worker.reductions.values())

    # the training process

    def _listen(self) -> None:
        if os.getppid() != self._parent:
            raise EOFError  # its own children may hold the line open
        while self.line.poll(0):
            said = msgpack.unpackb(self.line.recv_bytes())
            if said["do"] == "merge":
                self._merge(said)
            elif said["do"] == "cut":
                self._checkpoint()
            elif said["do"] == "close":
                self._closing_s = self.now() + LINGER_S

    def _merge(self, said: dict[str, Any]) -> None:
        if said["vector"] is None:
            vector = self.board.state[0]
        else:
            vector = np.frombuffer(said["vector"], self.spec.dtype).copy()
        self._advance()
        now_s = self.now()
        self._merges[said["round"]] = self.worker.reduce(
            said["round"], vector, said["weight"], now_s
        )
        self._flush()

    def _checkpoint(self) -> None:
        """Training stands between two steps, and waits for the copy alone."""
        self._advance()
        if self.worker.merging.started:  # since training has looked
            self._say(cut=None)
            return
        tree = self.worker.checkpoint(self.now())
        self.board.cut_step = self.worker.cut_step
        self._say(cut=[tree["since"], tree["cut"]])
        self.records.keep(tree)

    def _tell(self, now_s: float) -> None:
        """What the training process waits for, or should know."""
        if not self._ready and self.worker.ready and self.worker.context.fatal is None:
            self._ready = True
            self._say(ready=self.transport.address, steps=self.worker.context.clock.steps)
        for round, reduction in list(self._merges.items()):
            if reduction.result is not None:
                del self._merges[round]
                self._deliver(round, reduction.result, reduction.among)
        if self.worker.context.fatal is not None:
            raise self.worker.context.fatal
        if now_s >= self._publish_at_s:
            self._publish_at_s = now_s + PUBLISH_S
            self.board.publish(self.worker.context.stats.as_dict())
            self.records.flush()
            self._dialler.look(self.worker.peers.values(), now_s)

    def _deliver(self, round: int, result: np.ndarray[Any, Any], among: tuple[int, ...]) -> None:
        if round == 0:
            with self._gate:
                self.board.state[0] = result
        self._say(merged=round, among=list(among), vector=None if round == 0 else result.tobytes())

    def _drift(self, now_s: float) -> None:
        """Bring up to date what nothing else has, a little at a time; publish new constants."""
        time, slots = self.worker.time(now_s), self.worker.slots
        if slots.system is not self._system:
            with self._gate:
                self.worker.refresh(now_s)
                self.board.residual[:] = slots.system.relative.residual
            self._system = slots.system
            fastest = float(np.abs(slots.system.flow).sum(axis=1).max())
            self._age = max(1.0, DRIFT / fastest) if fastest else math.inf
            self._drift_at = time + self._age
        elif time >= self._drift_at:
            for chunk in slots.stale(time, self._age / 2):
                slots.drift(chunk, time)
            self._drift_at = time + self._age

    def _say(self, **words: Any) -> None:
        self.line.send_bytes(msgpack.packb(words))

    # the network

    def _flush(self) -> None:
        outbox = self.worker.outbox
        packets, outbox[:] = list(outbox), []
        for packet in packets:
            peer = packet.message.dst
            if not self.transport.knows(peer) and not self._dialler.dial(peer):
                continue
            beat = isinstance(packet.message, m.Beat)
            send = self.transport.beat if beat else self.transport.send
            send(peer, self._wire.encode(packet))

    def _curve(self) -> Curve:
        file = self.spec.key_file
        keys = new_keys() if file is None else keys_in(Path(file))
        return Curve(keys, self._keyring.holder)

    def _refused(self, refusal: Refusal) -> None:
        """A handshake has failed: we have been refused, or we have refused someone."""
        if refusal.by is not None:
            self.worker.refused(refusal.by, refusal.why, self.now(), refusal.final)
        else:
            self._refuse_key(refusal.why)

    def _refuse_key(self, why: str) -> None:
        stats = self.worker.context.stats
        stats.refused_keys += 1
        if stats.refused_keys <= TRACED:
            self.worker.context.trace("refused key", self.now(), why=why)

    def _receive(self, arrival: Arrival) -> None:
        try:
            packet = self._wire.decode(arrival)
        except PeerRefused as error:
            self._refuse(arrival, error)
            return
        except ProtocolError as error:
            self.worker.context.refuse(str(error), self.now())
            return
        if arrival.dialled is None and packet.message.src < self.spec.topology.n:
            self.transport.learn(packet.message.src, arrival.route)
        self.worker.receive(packet, self.now())

    def _refuse(self, arrival: Arrival, error: PeerRefused) -> None:
        """Someone else's run, version or key. If we have dialled it, the mistake is ours."""
        if arrival.dialled is not None:
            self.worker.refused(arrival.dialled, str(error), self.now())
            return
        if isinstance(error, WrongKey):
            self._refuse_key(str(error))
        else:
            self.worker.context.refuse(str(error), self.now())
        refusal = m.Refuse(src=self.spec.me, dst=-1, epoch=0, reason=str(error))
        self.transport.answer(arrival.route, frames.encode(m.Packet(refusal), self.spec.run))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process decides
    line = Connection(int(sys.argv[1]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    communicator = None
    try:
        spec = link.receive_spec(line)
        board = Board(
            len(system_on(spec.dynamics, spec.topology).slots),
            spec.values, spec.dtype, int(sys.argv[2]), len(spec.kept or ()),
        )  # fmt: skip
        communicator = Communicator(spec, board, line)
        communicator.run()
        taken_part = communicator.worker.reductions and communicator.merged
        communicator.stop("" if taken_part else "it left before it was merged")
    except (EOFError, BrokenPipeError, ConnectionResetError):
        if communicator is not None:
            communicator.worker.context.trace("fault", communicator.now(), what="training died")
            communicator.stop("" if communicator.spec.returns else "its training process died")
    except Exception as error:
        kind = type(error).__name__
        if communicator is not None:
            communicator.worker.context.trace("fault", communicator.now(), what=str(error))
            communicator.board.fail()
            communicator.stop("" if communicator.spec.returns else f"{kind}: {error}")
        line.send_bytes(msgpack.packb({"error": kind, "text": str(error)}))
        if not isinstance(error, DecentError):
            raise


if __name__ == "__main__":
    main()
