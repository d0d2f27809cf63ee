"""The global merge: a weighted mean over the topology's own edges that survives deaths. No I/O.

A spanning tree of those alive follows from (topology, dead) alone, so nobody has to agree on
one. Up it go `Ready` (my subtree has finished training; no exchange is open), then the subtree's
partial sums, chunk by chunk on request; down it go the results. Whoever learns of another death
starts again on the tree without it; dead sets only grow and every message carries its sender's,
so all who live end on the same tree. Everything is asked for again until it is there, and within
one tree every answer is a constant, so repeats are harmless. `Close` says that everyone has a
result, and is final: whoever is closed answers with it whatever others still ask.

There is one result for all who live, also where someone dies while it is handed out. Whoever has
the whole of it keeps it, adds nothing to any later tree, so that none can come to another, and says
so (`Held`); the others there fetch it from whom they hear it, and pass it on.

Where the dead cut the graph, the pieces are joined by edges of the tree's own: the merge is over
*all* alive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np

from decent.topology import Topology
from decent.worker import messages as m
from decent.worker.limits import Limits
from decent.worker.slots import Array


class Send(Protocol):
    """Sends one message of a merge to a peer."""

    def __call__(
        self, to: int, kind: type[m.Wave], payload: Array | None = None, **fields: Any
    ) -> None: ...


def spanning_tree(topology: Topology, dead: frozenset[int]) -> dict[int, int | None]:
    """Each living worker's parent: breadth first from the lowest, pieces joined to the root."""
    alive = [worker for worker in range(topology.n) if worker not in dead]
    parents: dict[int, int | None] = {}
    for start in alive:
        if start in parents:
            continue
        parents[start] = alive[0] if parents else None
        queue = deque([start])
        while queue:
            worker = queue.popleft()
            for peer in sorted(topology.neighbours(worker)):
                if peer not in dead and peer not in parents:
                    parents[peer] = worker
                    queue.append(peer)
    return parents


class Reduction:
    """One worker's part in one merge."""

    def __init__(
        self,
        me: int,
        topology: Topology,
        round: int,
        vector: Array,
        weight: float,
        limits: Limits,
        send: Send,
        dead: Iterable[int] = (),
    ) -> None:
        self.me, self.topology, self.round, self.limits = me, topology, round, limits
        self.vector, self.weight = vector, weight
        self.chunks = -(-vector.size // limits.chunk)
        self.result: Array | None = None  # once complete; never changes afterwards
        self.among: tuple[int, ...] = ()  # those merged
        self.closed = False
        self._of: tuple[int, ...] = ()  # the dead of the tree that `_mean` was made on
        self._own: Array | None = None  # what this worker adds: fixed when first asked for
        self._settled = False  # no exchange is open at this worker, nor will be
        self._send = send
        self._restart(frozenset(dead))

    def _restart(self, dead: frozenset[int]) -> None:
        self.dead, kept = dead, self._of
        tree = spanning_tree(self.topology, dead)
        self.parent = tree[self.me]
        self.children = [worker for worker, parent in tree.items() if parent == self.me]
        self._ready: set[int] = set()
        self._done: set[int] = set()
        self._collecting = 0  # chunks asked of the children so far
        self._wanted: set[int] = set()  # chunks the parent has asked for
        self._sums: dict[int, dict[int, tuple[Array, float]]] = {}  # chunk → child → partial
        self._partials: dict[int, tuple[Array, float]] = {}
        self._source = self.parent  # whom to fetch the result from
        self._held = self.result is not None  # made on an earlier tree
        self._of = kept if self._held else tuple(sorted(dead))
        self._mean = np.empty_like(self.vector) if self.result is None else self.result
        self._have = set(range(self.chunks)) if self._held else set[int]()
        self._fetching: set[int] = set()
        self._fetched = 0  # chunks asked of the parent so far, in order
        self._waiting: dict[int, set[int]] = {}  # chunk → children that wait for its result
        self._retry_at_s = -np.inf

    @property
    def started(self) -> bool:
        """What this worker adds is fixed: it takes part in no exchange any more."""
        return self._own is not None

    @property
    def own(self) -> Array | None:
        """What this worker adds, once that is fixed."""
        return self._own

    def peers(self) -> list[int]:
        return self.children + ([] if self.parent is None else [self.parent])

    def exclude(self, dead: Iterable[int]) -> bool:
        """Start again without `dead`; False if that is no news. The caller never passes `me`."""
        more = self.dead | frozenset(dead)
        if more == self.dead:
            return False
        self._restart(more)
        return True

    def poll(self, now_s: float) -> None:
        """Ask (again) for whatever is missing. Not to be called while an exchange is open."""
        self._settled = True
        if now_s < self._retry_at_s or self.closed:
            return
        self._retry_at_s = now_s + self.limits.retry_s
        for peer in self.peers() if self._held else ():
            self._tell(peer, m.Held, of=self._of)
        self._push()
        for chunk, sums in self._sums.items():
            for child in self.children:
                if child not in sums and chunk not in self._partials:
                    self._tell(child, m.Collect, chunk=chunk)
        for chunk in self._fetching:
            self._fetch(chunk)

    def next_s(self) -> float:
        return np.inf if self.closed else self._retry_at_s

    def _push(self) -> None:
        """Say what can be said: ready upwards, done upwards, or begin at the root."""
        ready = self._settled and len(self._ready) == len(self.children)
        if ready and not self._held and not self._wanted and not self._collecting:
            if self.parent is None:
                self._collect_more()
            else:
                self._tell(self.parent, m.Ready)
        if len(self._have) == self.chunks and len(self._done) == len(self.children):
            if self.parent is None:
                self._close()
            else:
                self._tell(self.parent, m.Done)

    def beat(self) -> None:
        """A sign of life along the tree, whose edges need not be the topology's."""
        for peer in () if self.closed else self.peers():
            self._tell(peer, m.Obituary)

    def receive(self, message: m.Wave, payload: Array | None) -> None:
        """A message of this round whose `dead` equals ours."""
        if isinstance(message, m.Close):
            if self.result is not None:  # else not everyone has it
                self._close()
            return
        if self.closed:
            self._tell(message.src, m.Close)
            return
        handlers: dict[type[m.Wave], Callable[[Any, Any], None]] = {
            m.Ready: self._on_ready,
            m.Collect: self._on_collect,
            m.Partial: self._on_partial,
            m.Fetch: self._on_fetch,
            m.Result: self._on_result,
            m.Held: self._on_held,
            m.Done: self._on_done,
        }
        chunk = getattr(message, "chunk", 0)
        if type(message) not in handlers or not 0 <= chunk < self.chunks:
            return
        if self._held and isinstance(message, m.Ready | m.Collect | m.Partial):
            self._tell(message.src, m.Held, of=self._of)
        elif message.src in self._expected(message):
            handlers[type(message)](message, payload)

    def _expected(self, message: m.Wave) -> list[int | None]:
        """Whom it may come from."""
        if isinstance(message, m.Fetch | m.Result | m.Held):
            return [*self.peers()]
        return [self.parent] if isinstance(message, m.Collect) else [*self.children]

    def _on_ready(self, message: m.Ready, _: None) -> None:
        self._ready.add(message.src)
        self._push()

    def _on_collect(self, message: m.Collect, _: None) -> None:
        self._wanted.add(message.chunk)
        if message.chunk in self._partials:
            self._send_partial(message.chunk)
        else:
            self._collect(message.chunk)

    def _collect_more(self) -> None:
        """The root keeps a window of chunks under way."""
        while (
            self._collecting < self.chunks
            and self._collecting - len(self._have) < self.limits.merge_window
        ):
            self._collecting += 1
            self._collect(self._collecting - 1)

    def _collect(self, chunk: int) -> None:
        if self._own is None:
            self._own = self.vector.copy()
        if chunk not in self._sums:
            self._sums[chunk] = {}
            for child in self.children:
                self._tell(child, m.Collect, chunk=chunk)
            self._add_up(chunk)

    def _on_partial(self, message: m.Partial, payload: Array) -> None:
        chunk = message.chunk
        right_size = payload.size == self._slice(chunk, self.vector).size
        if chunk in self._sums and chunk not in self._partials and right_size:
            self._sums[chunk][message.src] = payload, message.weight
            self._add_up(chunk)
            if self.parent is None:
                self._collect_more()

    def _add_up(self, chunk: int) -> None:
        sums = self._sums[chunk]
        if len(sums) < len(self.children):
            return
        weight = self.weight
        total = self._slice(chunk, self._own) * self.vector.dtype.type(weight)
        for part, part_weight in sums.values():
            total += part
            weight += part_weight
        sums.clear()
        self._partials[chunk] = total, weight
        if self.parent is not None:
            self._send_partial(chunk)
            self._fetch_more()
        else:
            self._have_chunk(chunk, total / self.vector.dtype.type(weight))

    def _send_partial(self, chunk: int) -> None:
        assert self.parent is not None
        total, weight = self._partials[chunk]
        self._tell(self.parent, m.Partial, total, chunk=chunk, weight=weight)

    def _fetch_more(self) -> None:
        """A window of results is under way, in order."""
        while len(self._fetching) < self.limits.merge_window and self._may_fetch(self._fetched):
            self._fetching.add(self._fetched)
            self._fetch(self._fetched)
            self._fetched += 1

    def _may_fetch(self, chunk: int) -> bool:
        """A result of this tree, once what it needs of us has been said; another's, at once."""
        made_here = self._of == tuple(sorted(self.dead))
        return chunk in self._partials if made_here else chunk < self.chunks

    def _fetch(self, chunk: int) -> None:
        assert self._source is not None
        self._tell(self._source, m.Fetch, chunk=chunk)

    def _on_fetch(self, message: m.Fetch, _: None) -> None:
        if message.chunk in self._have:
            self._send_result(message.src, message.chunk)
        else:
            self._waiting.setdefault(message.chunk, set()).add(message.src)

    def _send_result(self, child: int, chunk: int) -> None:
        self._tell(child, m.Result, self._slice(chunk, self._mean).copy(), chunk=chunk, of=self._of)

    def _on_held(self, message: m.Held | m.Result, _: object) -> None:
        """There is a result already, so none comes of this tree: fetch that one."""
        if self.result is None and self._of != message.of:
            self._of, self._source = message.of, message.src
            self._have, self._fetching, self._fetched = set(), set(), 0
            self._fetch_more()

    def _on_result(self, message: m.Result, payload: Array) -> None:
        if message.of != self._of:
            self._on_held(message, None)
            return
        right_size = payload.size == self._slice(message.chunk, self.vector).size
        if message.chunk in self._fetching and right_size:
            self._fetching.discard(message.chunk)
            self._have_chunk(message.chunk, payload)
            self._fetch_more()

    def _have_chunk(self, chunk: int, mean: Array) -> None:
        self._slice(chunk, self._mean)[:] = mean
        self._have.add(chunk)
        for child in self._waiting.pop(chunk, ()):
            self._send_result(child, chunk)
        if len(self._have) == self.chunks and self.result is None:
            self.result = self._mean
            self.among = tuple(each for each in range(self.topology.n) if each not in self._of)
            self._held = self._of != tuple(sorted(self.dead))
        self._push()

    def _on_done(self, message: m.Done, _: None) -> None:
        self._done.add(message.src)
        self._push()

    def _close(self) -> None:
        if not self.closed:
            self.closed = True
            for child in self.children:
                self._tell(child, m.Close)

    def _slice(self, chunk: int, of: Array | None) -> Array:
        assert of is not None
        start = chunk * self.limits.chunk
        return of[start : start + self.limits.chunk]

    def _tell(
        self, to: int, kind: type[m.Wave], payload: Array | None = None, **fields: Any
    ) -> None:
        self._send(to, kind, payload, round=self.round, dead=tuple(sorted(self.dead)), **fields)
