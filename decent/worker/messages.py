"""What workers say to one another: small typed messages, and at most one raw payload with each, a
chunk of a vector. How they look on the wire is told in `frames`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import xxhash

SLOTS = 64
"""Coefficients in a request, at most."""

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Known = Annotated[int, msgspec.Meta(ge=-1, lt=2**53)]  # −1: not known
Check = Annotated[int, msgspec.Meta(ge=0)]
Real = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Weight = Annotated[float, msgspec.Meta(gt=0, le=1e300)]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """How many checkpoints the sender has taken (see `cuts`)."""

    cut: Count = 0


class Message(Counted, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag=str.lower):
    """Sender, addressee, and the sender's incarnation: a restarted worker has a higher epoch."""

    src: Count
    dst: Known
    epoch: Count


class Hello(Message, frozen=True):
    """First words on a connection: what the sender is. `answer` asks for the peer's own, which
    gives back `asked_s`, the asker's time; `to_epoch` is the addressee's, as far as known."""

    workers: Count
    digest: str
    values: Count
    chunk: Count
    dtype: str
    codec: str
    answer: bool
    asked_s: Real
    to_epoch: Known


class Refuse(Message, frozen=True):
    """The sender will not talk, for a reason in words."""

    reason: str


class Beat(Message, frozen=True):
    """A sign of life, said at `asked_s` of the asker's time; `answer` asks to have that back."""

    asked_s: Real = 0.0
    answer: bool = False


class Gone(Message, frozen=True):
    """The sender stops for good, without being merged."""

    reason: str


class Addressed(Message, frozen=True):
    """Base of an exchange's messages: for the addressee's incarnation `to_epoch`, and no other."""

    to_epoch: Count


class Asking(Addressed, frozen=True):
    """Base: about chunk `chunk` of exchange `seq`; `mix` are the coefficients b both ends use.
    `settled`: answers to chunks below this need not be remembered any longer. `asked_s`: the
    sender's time, which the answer gives back: it tells which of several askings it answers."""

    seq: Count
    chunk: Count
    asked_s: Real
    settled: Count
    mix: Annotated[tuple[Real, ...], msgspec.Meta(max_length=SLOTS)]


class Request(Asking, frozen=True):
    """The sender's snapshot of that chunk."""


class Look(Asking, frozen=True):
    """The sender's values stand where the addressee can see them: it is to take them from there."""


class Answer(Addressed, frozen=True):
    """Base: on an asking, whose `asked_s` it gives back."""

    seq: Count
    chunk: Count
    asked_s: Real


class Reply(Answer, frozen=True):
    """What the responder's codec makes of that chunk, taken when it applied its own half."""


class Change(Answer, frozen=True):
    """What the responder has mixed where no codec loses anything: the other's values less its own.
    So it need not copy its own, nor the initiator subtract once more."""


class Decline(Addressed, frozen=True):
    """That chunk was not and will not be mixed."""

    seq: Count
    chunk: Count
    reason: str


class Settled(Addressed, frozen=True):
    """Exchange `seq` is complete at the initiator: nothing of it need be remembered."""

    seq: Count


class Show(Message, frozen=True):
    """Show me that chunk of your parameters: I have come back with nothing."""

    chunk: Count


class Shown(Message, frozen=True):
    """A chunk of the sender's parameters as they are, after so many local steps."""

    chunk: Count
    steps: Count


class Wave(Message, frozen=True):
    """Base of the global merge's messages: which merge, and among whom (`dead`: without them)."""

    round: Count
    dead: tuple[Count, ...]


class Ready(Wave, frozen=True):
    """The sender and everyone below it in the tree have finished training."""


class Collect(Wave, frozen=True):
    """Send me your subtree's sum of this chunk."""

    chunk: Count


class Partial(Wave, frozen=True):
    """A subtree's weighted sum of one chunk, and its weight."""

    chunk: Count
    weight: Weight


class Fetch(Wave, frozen=True):
    """Send me the result's chunk (again)."""

    chunk: Count


class Result(Wave, frozen=True):
    """One chunk of the weighted mean, over all but the dead `of` the tree that it was made on."""

    chunk: Count
    of: tuple[Count, ...]


class Held(Wave, frozen=True):
    """The sender has had a whole result since an earlier tree, that without the dead `of`, and adds
    nothing to another: fetch that one."""

    of: tuple[Count, ...]


class Done(Wave, frozen=True):
    """The sender and everyone below it hold the whole result."""


class Close(Wave, frozen=True):
    """Everyone holds the result."""


class Obituary(Wave, frozen=True):
    """The sender lives, and merges without `dead`: perhaps more than you know of."""


WithPayload = (Request, Reply, Change, Shown, Partial, Result)
Coded = (Request, Reply, Change)
Any_ = (
    Hello
    | Refuse
    | Beat
    | Gone
    | Request
    | Look
    | Reply
    | Change
    | Decline
    | Settled
    | Show
    | Shown
    | Ready
    | Collect
    | Partial
    | Fetch
    | Result
    | Held
    | Done
    | Close
    | Obituary
)


class Packet(NamedTuple):
    """A message and its payload (1-D array, or None). `check`: the checksum it came with; `intact`:
    of a payload read where its sender wrote it, whether it is still what was sent."""

    message: Message
    payload: np.ndarray[Any, Any] | None = None
    check: int | None = None
    intact: Callable[[], bool] = lambda: True

    @property
    def nbytes(self) -> int:
        """Payload bytes; headers are counted where they are encoded."""
        return 0 if self.payload is None else int(self.payload.nbytes)

    @property
    def damaged(self) -> bool:
        """Whether the payload is not what was sent."""
        if self.payload is None or self.check is None:
            return False
        return checksum(self.payload) != self.check


def checksum(payload: np.ndarray[Any, Any]) -> int:
    """64 bits of its bytes. It tells damage, not forgery."""
    return xxhash.xxh3_64_intdigest(payload.data)
