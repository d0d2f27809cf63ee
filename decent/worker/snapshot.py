"""All that a worker has to remember to go on: as plain values and arrays, and back. No I/O.

A *tree* is made of dictionaries, lists, strings, numbers and NumPy arrays; `split` takes the arrays
out of it and names them by their path, for files that keep them apart. What is not in it: messages
on their way, which count as lost; how far peers are, since they will be met anew; and the schedule,
whose draws are played again (see `Agenda`). The parts keep what is theirs: `state` and `restore`.

Seconds go on from those of the snapshot, shifted by how much later it is now.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from decent.worker import messages as m
from decent.worker.codec import Said
from decent.worker.exchange import Answers, Exchange, InFlight
from decent.worker.peers import Peer
from decent.worker.roundtrip import RoundTrip
from decent.worker.slots import Array

if TYPE_CHECKING:
    from decent.worker.worker import Worker

Tree = dict[str, Any]
ARRAY = "array at"
ANEW = {"_since_s"}
"""of a clock: a step that was under way begins again"""


def taken(worker: Worker, now_s: float) -> Tree:
    """What `worker` is now. Everything in it is a copy."""
    context, exchanges = worker.context, worker.exchanges
    tree: Tree = _copied({
        "me": worker.me, "epoch": context.epoch, "s": now_s,
        "cut": context.cut, "since": worker.cuts.since,
        "clock": {k: v for k, v in vars(context.clock).items() if k not in ANEW},
        "meter": vars(worker.meter), "pace": worker.momentum.pace, "delay": exchanges.delay,
        "slots": worker.slots.state(), "agenda": worker.agenda.state(),
        "coder": exchanges.mixing.coder.state(),
        "stats": vars(context.stats) | {"skipped": dict(context.stats.skipped)},
        "peers": {peer.id: _peer(peer) for peer in worker.peers.values()},
        "open": {each.peer: _exchange(each) for each in exchanges.open.values()},
        "ledger": None if worker.ledger is None else worker.ledger.state(),
    })  # fmt: skip
    return tree


def restore(worker: Worker, tree: Tree, now_s: float) -> None:
    """Make a fresh worker of the same run and epoch what another one was."""
    tree = _copied(tree)  # arrays of files are read-only, and a checkpoint may be used again
    context, exchanges, later_s = worker.context, worker.exchanges, now_s - tree["s"]
    context.cut, worker.cuts.since = tree["cut"], tree["since"]
    _put(context.clock, tree["clock"])
    worker.cuts.step = context.clock.steps
    _put(worker.meter, tree["meter"])
    _put(context.stats, tree["stats"] | {"skipped": Counter(tree["stats"]["skipped"])})
    worker.momentum.pace, exchanges.delay = tree["pace"], tree["delay"]
    worker.slots.restore(tree["slots"])
    worker.agenda.restore(tree["agenda"])
    exchanges.mixing.coder.restore(tree["coder"])
    for key, known in tree["peers"].items():
        _put_peer(worker.peers[key], known, now_s, later_s)
    for key, each in tree["open"].items():
        exchanges.open[key] = _opened(worker, worker.peers[key], each, later_s)
        if not each["flying"]:  # it waits for the budget
            context.budget.wait(key)
    if worker.ledger is not None and tree["ledger"] is not None:
        worker.ledger.restore(tree["ledger"])


def of_another_life(tree: Tree) -> Tree:
    """What of a checkpoint is of use to a worker that comes back as another: nothing of what its
    peers knew of its former self."""
    return tree | {
        "open": {}, "coder": tree["coder"] | {"agreed": []}, "ledger": None,
        "peers": {key: {"seq": known["seq"]} for key, known in tree["peers"].items()},
    }  # fmt: skip


def _put(target: object, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        setattr(target, name, value)


# peers


def _peer(peer: Peer) -> Tree:
    replies = {
        chunk: [kind is m.Change, payload]
        for chunk, (kind, payload) in peer.answers.replies.items()
    }
    answered = sorted(peer.answers.answered)
    answers = vars(peer.answers) | {"answered": answered, "replies": replies}
    return {"epoch": peer.epoch, "dead": peer.state == "dead", "seq": peer.seq, "answers": answers}


def _put_peer(peer: Peer, known: Tree, now_s: float, later_s: float) -> None:
    """It is not heard yet, nor is it known how far it is."""
    peer.seq, peer.since_s = known["seq"], now_s
    if "epoch" not in known:
        return
    answers = dict(known["answers"])
    answers |= {"answered": set(answers["answered"]), "last_s": answers["last_s"] + later_s}
    answers["replies"] = {
        chunk: (m.Change if is_change else m.Reply, payload)
        for chunk, (is_change, payload) in answers["replies"].items()
    }
    peer.epoch, peer.answers = known["epoch"], Answers(**answers)
    peer.state = "dead" if known["dead"] else "expected"
    peer.heard_s = now_s
    peer.round_trip = RoundTrip()


# exchanges


def _exchange(exchange: Exchange) -> Tree:
    kept = ("seq", "mix", "chunks", "started_s", "sent", "mixed", "squared", "declined")
    flying = {chunk: _flight(each) for chunk, each in exchange.flying.items()}
    return {name: getattr(exchange, name) for name in kept} | {"flying": flying}


def _flight(flight: InFlight) -> Tree:
    said = flight.said
    kept = {name: getattr(flight, name) for name in ("retry_at_s", "pause_s")}
    if said is None:  # the peer was to look
        return kept | {"values": None}
    coded = None if np.shares_memory(said.payload, said.values) else said.payload
    return kept | {"values": said.values, "where": said.where, "coded": coded}


def _opened(worker: Worker, peer: Peer, kept: Tree, later_s: float) -> Exchange:
    flying = {chunk: _flown(each, later_s) for chunk, each in kept["flying"].items()}
    fields = kept | {
        "mix": tuple(kept["mix"]), "started_s": kept["started_s"] + later_s, "flying": flying,
    }  # fmt: skip
    return Exchange(
        peer=peer.id,
        limits=worker.context.limits,
        round_trip=peer.round_trip,
        window=peer.window,
        **fields,
    )


def _flown(kept: Tree, later_s: float) -> InFlight:
    values, said = kept["values"], None
    if values is not None:
        coded = kept["coded"]
        said = Said(values.view(np.uint8) if coded is None else coded, values, kept["where"])
    return InFlight(said, kept["retry_at_s"] + later_s, kept["pause_s"])


# trees


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_copied(each) for each in value]
    if isinstance(value, np.generic):
        return value.item()
    return value.copy() if isinstance(value, np.ndarray) else value


def split(tree: Any) -> tuple[Any, dict[str, Array]]:
    """The tree with its arrays' paths in their places, and the arrays by path."""
    arrays: dict[str, Array] = {}
    return _out(tree, "", arrays), arrays


def _out(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return {ARRAY: path}
    if isinstance(value, list):
        return [_out(each, f"{path}.{k}", arrays) for k, each in enumerate(value)]
    if isinstance(value, dict):
        return {key: _out(each, f"{path}.{key}", arrays) for key, each in value.items()}
    return value


def joined(tree: Any, arrays: Mapping[str, Array]) -> Any:
    """The inverse of `split`."""
    if isinstance(tree, list):
        return [joined(each, arrays) for each in tree]
    if not isinstance(tree, dict):
        return tree
    if ARRAY in tree:
        return arrays[tree[ARRAY]]
    return {key: joined(each, arrays) for key, each in tree.items()}
