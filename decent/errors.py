"""The tree of errors. Ours stand apart from the peer's, the user's apart from both.

::

    DecentError
    ├── InputError              what the user gave cannot be used; the command line exits with 2
    │   ├── ConfigError         a key or value of a configuration
    │   ├── TopologyError       a graph, its rates or its file
    │   ├── ScheduleError       a schedule that cannot be built, or yields nonsense
    │   ├── DynamicsError       a linear-jump system that is not one, impossible constants
    │   ├── TaskError           a task or its data
    │   ├── ModelError          a model that cannot be gossiped or merged
    │   └── MissingExtra        an optional dependency that is not installed
    ├── RuntimeFault            our side failed while running
    │   ├── CommunicatorError   the communicator process died or reported an error
    │   └── Declared            this worker's peers have declared it dead and merged without it
    └── PeerError               the other side's doing
        ├── PeerRefused         wrong run, wrong worker, another version, another model, its key
        │   └── WrongKey        one worker's key where another speaks
        ├── ProtocolError       a malformed message
        └── ExpertLost          an expert that cannot answer any more

Every message says what was given, what was expected and what to do.
"""

from __future__ import annotations


class DecentError(Exception):
    """Root of all errors raised on purpose by decent."""


class InputError(DecentError):
    """What the user gave cannot be used. The message is built of what was given, what was
    expected and what to do, so that none of the three is forgotten."""

    def __init__(self, given: str, expected: str = "", remedy: str = "") -> None:
        self.given, self.expected, self.remedy = given, expected, remedy
        text = given
        if expected:
            text += f": expected {expected}"
        if remedy:
            text += f". {remedy[:1].upper()}{remedy[1:]}"
        super().__init__(text)


class ConfigError(InputError):
    """A key or value of a configuration."""


class TopologyError(InputError):
    """A graph, its rates or its file."""


class ScheduleError(InputError):
    """A schedule that cannot be built, or that yields nonsense."""


class DynamicsError(InputError):
    """A linear-jump system that is not one, or constants that cannot be."""


class TaskError(InputError):
    """A task or its data."""


class ModelError(InputError):
    """A model that cannot be gossiped or merged."""


class MissingExtra(InputError):
    """An optional dependency that is not installed."""


class RuntimeFault(DecentError):
    """Our own side failed while running."""


class CommunicatorError(RuntimeFault):
    """The communicator process died or reported an error."""


class Declared(RuntimeFault):
    """This worker's peers have declared it dead and merged without it."""


class PeerError(DecentError):
    """The other side's doing."""


class PeerRefused(PeerError):
    """Wrong run, wrong worker, another version, another model or an unknown key, at either end."""


class WrongKey(PeerRefused):
    """One worker's key where another speaks."""


class ProtocolError(PeerError):
    """A malformed message."""


class ExpertLost(PeerError):
    """An expert that cannot answer any more."""
