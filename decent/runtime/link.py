"""The line between a training process and its communicator: what starts one, what they say.

The communicator is a fresh interpreter without torch. The spec of the worker goes to it as a pickle
(by value for a user's own schedule, also one defined in a script): the line joins a process to its
own child and carries nothing from the network.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cloudpickle
import msgpack

from decent import errors
from decent.dynamics import Dynamics
from decent.errors import DecentError
from decent.schedule import Schedule
from decent.topology import Topology
from decent.worker import Limits


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


def start(spec: Spec, board_fd: int) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start the communicator of `spec` on the memory behind `board_fd`."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "decent.runtime.communicator", str(theirs.fileno()), str(board_fd)],
        pass_fds=(theirs.fileno(), board_fd),
        stdin=subprocess.DEVNULL,
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
