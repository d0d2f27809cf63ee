"""The conservation ledger of one worker: what every event brought to its state, in a few random
directions (`probes`), one line a piece. `audit` adds up the ledgers of a run.

    opened      what the state comes to at the start
    exchange    ⟨p, m_peer − m_own⟩ of each chunk mixed here, and b: slot s moved by b[s] of it
    in flight   chunks of an own exchange that were given up unanswered: not mixed here, by rule
    balance     since the last: the local steps; what is expected now, and what is held
    merge       what this worker put into the global mean, and what came out of it
    closed      the books are complete

An exchange gets its line when the next one begins with that peer, or at a balance. The ledger
listens to the trace: what the exchange says it did stands beside what the slots saw of it, so that
one without the other shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from decent.dynamics import System
from decent.schedule import stream
from decent.worker.accounts import Accounts, Kept, Mixed, Strides
from decent.worker.context import Record
from decent.worker.probes import DENSE, PROBES, Array, Probes, Sums

if TYPE_CHECKING:
    from decent.worker.worker import Worker

FILE = "ledger.jsonl"
EVERY = 100
"""local steps from one balance to the next"""
SHARE = 16
"""of so many values one is in account where measuring the steps may cost but little"""
NOTHING = Mixed(np.zeros(PROBES), 0.0, ())

Mode = Literal["auto"] | bool
Event = dict[str, Any]


def kept_values(mode: Mode, seed: int, values: int, chunk: int) -> Kept | None:
    """What of a vector has its local steps measured, the same at all workers: all of it; or, where
    that is more than DENSE values, about a sixteenth, in chunks drawn at random, or in a part of
    one. None: there is no ledger."""
    if mode is False:
        return None
    sizes = [min(chunk, values - start) for start in range(0, values, chunk)]
    if mode is True or values <= DENSE:
        return dict(enumerate(sizes))
    most = max(DENSE, values // SHARE)
    drawn = stream(seed, "ledger").permutation(len(sizes))[: -(-most // chunk)]
    return {int(each): min(sizes[each], most) for each in sorted(drawn)}


@dataclass
class Entry:
    """An exchange, as far as it has been mixed here."""

    s: float
    epochs: tuple[int, int]
    seq: int
    mix: tuple[float, ...] = ()
    size: float = 0.0
    chunks: dict[int, Sums] = field(default_factory=dict)
    kept: dict[int, Sums] = field(default_factory=dict)  # where only a part is in account

    def add(self, chunk: int, mixed: Mixed) -> None:
        self.mix, self.size = mixed.mix or self.mix, max(self.size, mixed.size)
        self.chunks[chunk] = self.chunks.get(chunk, 0.0) + mixed.moved
        if mixed.kept is not None:
            self.kept[chunk] = self.kept.get(chunk, 0.0) + mixed.kept


class Ledger:
    """Writes lines to `record`. `kept` is that of which local steps are measured, all without it;
    `stepped` [len(kept), PROBES] the totals of these steps, if the optimizer is elsewhere. One that
    is not begun `anew` will be restored, and goes on with books that are open."""

    def __init__(
        self,
        record: Record,
        seed: int,
        kept: Kept | None = None,
        stepped: Array | None = None,
        every: int = EVERY,
        anew: bool = True,
    ) -> None:
        self._record, self._kept, self._stepped, self._every = record, kept, stepped, every
        self.probes = Probes(seed)
        self._entries: dict[tuple[int, bool], Entry] = {}  # (peer, started here) → the latest
        self._due = every
        self._closed, self._lines = not anew, 0

    def slots(
        self,
        array: Array,
        system: System,
        chunk: int,
        guard: AbstractContextManager[object] | None = None,
    ) -> Accounts:
        """What the worker is to hold its state in, as `Slots`; and from now on `strides`, to be
        entered around each local step where the optimizer is in this process."""
        kept = self._kept or kept_values(True, 0, array.shape[1], chunk) or {}
        stepped = np.zeros((len(kept), PROBES)) if self._stepped is None else self._stepped
        self._accounts = Accounts(array, system, chunk, guard, self.probes, kept, stepped)
        self.strides = Strides(array[0], chunk, kept, self.probes, stepped)
        return self._accounts

    def open(self, worker: Worker) -> None:
        """Listen to the worker's trace from now on."""
        self._worker = worker
        self._pass_on, worker.context.record = worker.context.record, self._hear
        if not self._closed:
            self._opened()

    def begin(self) -> None:
        """New books, for a worker that has been restored as another."""
        self._entries.clear()
        self._accounts.reopen()
        self._due, self._closed = self._worker.context.clock.steps + self._every, False
        self._opened()

    def _opened(self) -> None:
        worker, accounts = self._worker, self._accounts
        balance = accounts.balance()
        self._write(
            "opened", worker=worker.me, epoch=worker.context.epoch,
            step=worker.context.clock.steps,
            slots=list(accounts.system.slots), values=accounts.values, chunks=accounts.chunks,
            eps=float(np.finfo(accounts.array.dtype).eps), kept=list(accounts.kept.items()),
            held=balance.held.tolist(),
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What `restore` needs; arrays are the live ones."""
        entries = [[*key, vars(entry)] for key, entry in self._entries.items()]
        return {"entries": entries, "due": self._due, "lines": self._lines}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with these books."""
        for peer, mine, kept in state["entries"]:
            fields = kept | {"epochs": tuple(kept["epochs"]), "mix": tuple(kept["mix"])}
            self._entries[peer, mine] = Entry(**fields)
        self._due, self._lines, self._closed = state["due"], state["lines"], False

    def close(self, now_s: float) -> None:
        """No more will happen to this worker; exchanges that are open stay so."""
        if self._closed:
            return
        for exchange in self._worker.exchanges.open.values():
            self._in_flight(now_s, exchange.peer, exchange.seq, list(exchange.flying), "the end")
        self._balance(now_s)
        self._end(now_s)

    def _end(self, s: float) -> None:
        self._write("closed", s=s)
        self._closed = True

    def _write(self, event: str, **fields: Any) -> None:
        self._record({"event": event, **fields})
        self._lines += 1

    # the trace

    def _hear(self, event: Event) -> None:
        self._pass_on(event)
        if self._closed:
            return
        match event:
            case {"event": "apply" | "reply"}:
                self._on_mixed(event)
            case {"event": "fault", "what": "exchange abandoned"}:
                about = event["peer"], event["seq"], event["in_flight"], event["reason"]
                self._in_flight(event["s"], *about)
            case {"event": "gradient", "steps": steps} if steps >= self._due:
                self._due = steps + self._every
                self._balance(event["s"])
            case {"event": "merge", "round": 0}:
                self._on_merge(event)

    def _on_mixed(self, event: Event) -> None:
        """`apply`: an own exchange's chunk, `reply`: a peer's."""
        peer, mine, seq = event["peer"], event["event"] == "apply", event["seq"]
        entry, epochs = self._entries.get((peer, mine)), self._epochs(peer, mine)
        if entry is None or (entry.epochs, entry.seq) != (epochs, seq):
            self._flush((peer, mine))
            entry = self._entries[peer, mine] = Entry(event["s"], epochs, seq)
        entry.add(event["chunk"], self._accounts.mixed.pop(event["chunk"], NOTHING))

    def _on_merge(self, event: Event) -> None:
        """The mean is complete; nothing has been put into the state yet."""
        reduction = self._worker.reductions[0]
        own, result = reduction.own, reduction.result
        assert own is not None
        assert result is not None
        self._balance(event["s"])
        self._write(
            "merge", s=event["s"], weight=reduction.weight, among=event["among"],
            size=float(np.linalg.norm(own)), before=self._all(own), after=self._all(result),
        )  # fmt: skip
        self._end(event["s"])

    # lines

    def _epochs(self, peer: int, mine: bool) -> tuple[int, int]:
        """Of the worker that starts an exchange, and of the one that answers."""
        own, theirs = self._worker.context.epoch, self._worker.peers[peer].epoch
        return (own, theirs) if mine else (theirs, own)

    def _in_flight(self, s: float, peer: int, seq: int, chunks: list[int], reason: str) -> None:
        if chunks:
            self._write(
                "in flight", s=s, peer=peer, epochs=self._epochs(peer, True), seq=seq,
                chunks=chunks, reason=reason,
            )  # fmt: skip

    def _flush(self, key: tuple[int, bool]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._write(
                "exchange", s=entry.s, peer=key[0], mine=key[1], epochs=entry.epochs, seq=entry.seq,
                mix=list(entry.mix), size=entry.size, chunks=list(entry.chunks),
                moved=[moved.tolist() for moved in entry.chunks.values()],
                kept=[(chunk, moved.tolist()) for chunk, moved in entry.kept.items()],
            )  # fmt: skip

    def _balance(self, s: float) -> None:
        for key in list(self._entries):
            self._flush(key)
        balance = self._accounts.balance()
        self._write(
            "balance", s=s, step=self._worker.context.clock.steps, steps=balance.steps.tolist(),
            expected=balance.expected.tolist(), held=balance.held.tolist(), size=balance.size,
            events=balance.events, worst=balance.worst,
            conserved=self._accounts.conserved.tolist(),
        )  # fmt: skip

    def _all(self, vector: Array) -> list[float]:
        """The probes' products with a whole vector."""
        spans = [(chunk, self._accounts.span(chunk)) for chunk in range(self._accounts.chunks)]
        parts = [self.probes(chunk, vector[span]) for chunk, span in spans]
        return [float(each) for each in np.sum(parts, axis=0)]
