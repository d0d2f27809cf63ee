"""The line between a training process and its communicator: what starts one, what they say.

The communicator is a fresh interpreter without torch. The spec of the worker goes to it as a pickle
(by value for a user's own schedule, also one defined in a script): the line joins a process to its
own child and carries nothing from the network.
"""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgpack
import msgspec
import numpy as np

from decent import errors
from decent.dynamics import Dynamics
from decent.errors import CommunicatorError, ConfigError, DecentError
from decent.runtime import security
from decent.runtime.board import Board
from decent.schedule import Schedule
from decent.topology import Topology
from decent.transport import bounds
from decent.worker import Codec, Limits, Span, codecs
from decent.worker.accounts import Kept, Strides
from decent.worker.ledger import Mode, kept_values
from decent.worker.probes import Probes

if TYPE_CHECKING:
    from decent.learning import Layout
    from decent.runtime.world import World

SURROUNDINGS = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 28),
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of a communicator: glibc keeps the memory of chunks for the next ones, where else each costs a
page fault per 4 KiB; and its products of vectors leave the cores to training: spread over them
they take six times as long where others want these."""
WAIT_S = 0.2
MENTION_S = 30.0
"""how often a wait for others is mentioned in the log"""


@dataclass(frozen=True)
class Spec:
    """All that a communicator has to know of its worker."""

    me: int
    topology: Topology
    dynamics: Dynamics
    schedule: Schedule
    limits: Limits
    values: int
    dtype: str
    digest: str
    run: str
    seed: int
    steps: int | None
    origin_s: float  # monotonic seconds that count as 0 in the trace
    folder: str  # of the run
    address: str  # to listen on
    shared_memory: bool = True  # for payloads to workers of this machine
    codec: Codec = field(default_factory=Codec)
    encrypt: bool = False
    key_file: str | None = None  # of its secret key; None: it makes a pair for itself
    ledger: Mode = False
    checkpoint_every: int = 0  # local steps
    span: Span | None = None  # the checkpoint to go on from
    rejoins: bool = False  # as another, while the others run
    returns: bool = False  # if it dies it is started again: nobody is told that it has

    @property
    def kept(self) -> Kept | None:
        """What of the model has its local steps measured; None: it keeps no ledger."""
        return kept_values(self.ledger, self.seed, self.values, self.limits.chunk)

    def strides(self, board: Board) -> Strides | None:
        """What measures them, in the training process."""
        if self.kept is None:
            return None
        vector, chunk = board.state[0], self.limits.chunk
        return Strides(vector, chunk, self.kept, Probes(self.seed), board.stepped)


def spec_of(
    world: World,
    topology: Topology,
    dynamics: Dynamics,
    schedule: Schedule,
    layout: Layout,
    steps: int | None,
) -> Spec:
    """What the communicator of this process is to know."""
    runtime = world.config.runtime
    if world.folder is None:
        raise ConfigError("a run of several workers without a folder", "World(folder=…)")
    apart = not security.on_one_machine(world.config, topology)
    limits = bounds.limits(world.config, layout.numel, np.dtype(layout.dtype).itemsize, apart)
    encrypts = security.encrypts(world.config, topology)
    return Spec(
        me=world.me, topology=topology, dynamics=dynamics, schedule=schedule, limits=limits,
        values=layout.numel, dtype=layout.dtype, digest=layout.digest, run=world.run,
        seed=world.config.seed, steps=steps, origin_s=world.origin_s, folder=str(world.folder),
        address=security.address_of(world.config, topology, world.me),
        shared_memory=runtime.shared_memory, encrypt=encrypts,
        codec=codecs.get(**msgspec.structs.asdict(world.config.exchange)),
        key_file=security.key_file(world.config, topology, world.me) if encrypts else None,
        ledger=runtime.ledger, checkpoint_every=runtime.checkpoint_every, span=world.span,
        rejoins=world.rejoins, returns=world.returns,
    )  # fmt: skip


class Partner:
    """The training process's end of the line, and the communicator process at the other.

    `meanwhile` is called a few times a second while something is waited for; it may wait for
    something else.
    """

    def __init__(self, spec: Spec, board: Board, meanwhile: Callable[[], None]) -> None:
        self._me, self.board, self._meanwhile = spec.me, board, meanwhile
        self._unasked: list[dict[str, Any]] = []  # what was heard while another word was waited for
        self._process, self._line = start(spec, board.fd)

    @property
    def pid(self) -> int:
        """Of the communicator."""
        return self._process.pid

    def say(self, **words: Any) -> None:
        try:
            self._line.send_bytes(msgpack.packb(words))
        except OSError:
            self.hear("error")

    def hear(self, word: str, patience_s: float = math.inf) -> dict[str, Any]:
        """Wait for a word of the communicator. Raises its error, if that comes instead."""
        start_s = mentioned_s = time.monotonic()
        while True:
            for said in [said for said in self._unasked if word in said]:
                self._unasked.remove(said)
                return said
            if self._line.poll(min(WAIT_S, patience_s)):
                said = self._read()
                if "error" in said:
                    raise as_error(said["error"], said["text"])
                self._unasked.append(said)
                continue
            now_s = time.monotonic()
            if now_s > start_s + patience_s:
                raise CommunicatorError(f"the communicator said no {word!r} in {patience_s:.0f} s")
            if now_s > mentioned_s + MENTION_S:
                mentioned_s = now_s
                print(f"worker {self._me}: waiting for the others ({word})", flush=True)
            self._meanwhile()

    def check(self) -> None:
        """Raise what the communicator ended with, if it has ended."""
        if self._process.poll() is not None:
            self.hear("error")  # its last words, or that there are none

    def part(self) -> dict[str, Any]:
        """End the communicator in good order; its statistics, unless it has failed before."""
        stats: dict[str, Any] = {}
        try:
            self._line.send_bytes(msgpack.packb({"do": "close"}))
            while not stats:
                stats = msgpack.unpackb(self._line.recv_bytes()).get("stats", {})
        except (EOFError, OSError):
            pass
        self._line.close()
        self._process.wait()
        return stats

    def _read(self) -> dict[str, Any]:
        try:
            return dict(msgpack.unpackb(self._line.recv_bytes()))
        except (EOFError, OSError):
            code = self._process.wait()
            raise CommunicatorError(
                f"the communicator process ended with code {code}; see log.txt"
            ) from None


def start(spec: Spec, board_fd: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start the communicator of `spec` on the memory behind `board_fd`."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "decent.runtime.communicator", str(theirs.fileno()), str(board_fd)],
        pass_fds=(theirs.fileno(), board_fd),
        stdin=subprocess.DEVNULL,
        env={**os.environ, **SURROUNDINGS},
    )
    theirs.close()
    line = Connection(ours.detach())
    for name, module in list(sys.modules.items()):
        if name.startswith("decent_plugin_"):  # from a file: it has no name to import it by
            cloudpickle.register_pickle_by_value(module)
    line.send_bytes(msgpack.packb(sys.path))
    line.send_bytes(cloudpickle.dumps(spec))
    return process, line


def receive_spec(line: Connection) -> Spec:
    """What the communicator reads first."""
    sys.path[:] = msgpack.unpackb(line.recv_bytes())
    spec: Spec = cloudpickle.loads(line.recv_bytes())
    return spec


def as_error(kind: str, text: str) -> DecentError:
    """The communicator's error, as the training process raises it."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, DecentError):
        return found(text)
    return errors.CommunicatorError(f"the communicator failed with {kind}: {text}")
