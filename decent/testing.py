"""For those who write schedules and dynamics: virtual time, faults on request, random cases.

    cluster(family("ring", 8), Gossip(), MySchedule(), values=100, faults=[kill(3, at_s=5)])
    contacts(MySchedule(), family("ring", 8), until=100)

A `Cluster` drives the very workers of a real run over a modelled network, in no time and with no
clock: equal seeds give equal runs to the bit. Times are virtual seconds; a local step takes one,
unless a `Pace` says otherwise. The strategies need hypothesis: `pip install decent[testing]`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from decent import schedule as schedule_
from decent.dynamics import Dynamics, State, System
from decent.errors import MissingExtra
from decent.schedule import Agenda, Schedule, View, as_schedule, stream
from decent.simulation.cluster import Cluster, Fault
from decent.simulation.cluster import Pace as Pace
from decent.simulation.network import Network
from decent.topology import Topology
from decent.worker import Clock, Codec, Ledger, Limits, UniformClock, Worker
from decent.worker.near import Near

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn, SearchStrategy

SLOTS = ("x", "x̃", "y", "ỹ", "z", "z̃")
LIMITS = Limits(chunk=4, window=2, start_s=20.0)
"""Those of a real run, but chunks so small that small vectors travel in several."""


class Beside(Near):
    """Every peer is near."""

    def sees(self, peer: int) -> bool:
        return True


def cluster(
    topology: Topology,
    dynamics: Dynamics,
    schedule: Any,
    values: int = 8,
    *,
    initial: State | None = None,
    steps: int | None = None,
    network: Network | None = None,
    limits: Limits = LIMITS,
    clock: Callable[[], Clock] = UniformClock,
    trace: list[dict[str, Any]] | None = None,
    ledgers: dict[int, list[dict[str, Any]]] | None = None,
    seed: int = 0,
    follow: bool = True,
    codec: Codec | None = None,
    near: bool = False,
    checkpoint_every: int = 0,
    **options: Any,
) -> Cluster:
    """Workers at `initial` parameters (n, d), random normal by default, on a network without
    delays by default. Events are appended to `trace`, each with its worker; `ledgers` takes up each
    worker's lines, for `decent.worker.audit`. Workers `near` one another see each other's values,
    as on one machine. `options` are those of `Cluster`: learner, paces, weights, faults, merge."""
    if initial is None:
        initial = stream(seed, "initial").normal(size=(topology.n, values))
    events = [] if trace is None else trace

    def ledger(me: int, lines: int | None) -> Ledger | None:
        if ledgers is None:
            return None
        written = ledgers.setdefault(me, [])
        if lines is not None:
            del written[lines:]
        return Ledger(written.append, seed, anew=lines is None)

    def make(me: int, epoch: int = 0, lines: int | None = None) -> Worker:
        return Worker(
            me, topology, dynamics, as_schedule(schedule), dynamics.initial(initial[me]),
            seed=seed, steps=steps, clock=clock(), limits=limits, follow=follow, epoch=epoch,
            record=lambda event: events.append({"worker": me, **event}),
            codec=codec, ledger=ledger(me, lines), checkpoint_every=checkpoint_every,
            near=Beside() if near else None,
        )  # fmt: skip

    workers = [make(me) for me in range(topology.n)]
    network = network or Network(topology, seed=seed)
    return Cluster(workers, network, seed=seed, make=make, **options)


def contacts(
    schedule: Any,
    where: Topology | View,
    until: float,
    *,
    worker: int = 0,
    steps: int | None = None,
    seed: int = 0,
) -> list[tuple[float, int]]:
    """What `schedule` does on `worker` up to local time `until`, as (time, peer), with the random
    numbers of a run with this seed; `steps` is the planned length, if progress is looked at."""
    if isinstance(where, Topology):
        where = View.of(where, worker, seed)
    agenda, made = Agenda(as_schedule(schedule), where), list[tuple[float, int]]()
    while agenda.next_time <= until:
        time = max(0.0, agenda.next_time)
        progress = min(1.0, math.floor(time) / steps) if steps else None
        made += [(time, peer) for peer in agenda.due(time, progress)]
    return made


def kill(worker: int, at_s: float) -> Fault:
    """The worker's process dies and does not come back."""
    return Fault(at_s, f"worker {worker} is killed", lambda cluster: cluster.kill(worker))


def restart(worker: int, at_s: float) -> Fault:
    """A new process takes the worker's place, and knows nothing of what was before."""
    return Fault(at_s, f"worker {worker} restarts", lambda cluster: cluster.restart(worker))


def rejoin(worker: int, at_s: float) -> Fault:
    """A new process takes the worker's place, from its latest checkpoint or a neighbour's model."""
    return Fault(at_s, f"worker {worker} rejoins", lambda cluster: cluster.rejoin(worker))


def resume(at_s: float) -> Fault:
    """All processes are killed, and go on from their newest checkpoints, if all have some."""
    return Fault(at_s, "all go on from their checkpoints", _resume_all)


def pause(worker: int, at_s: float, for_s: float) -> Fault:
    """The worker does nothing for a while (a laptop asleep); what reaches it waits."""
    what = f"worker {worker} pauses"
    return _while(what, at_s, for_s, lambda c, on: (c.pause if on else c.resume)(worker))


def slow(worker: int, factor: float, at_s: float = 0.0, for_s: float = math.inf) -> Fault:
    """Steps of the worker that begin in this time take `factor` times as long."""
    what = f"worker {worker} is {factor} times slower"
    return _while(
        what, at_s, for_s, lambda c, on: c.slowdown.update({worker: factor if on else 1.0})
    )


def cut(i: int, j: int, at_s: float, for_s: float = math.inf) -> Fault:
    """The link between two workers carries nothing, either way."""

    def act(cluster: Cluster, on: bool) -> None:
        links = cluster.network.cut
        (links.add if on else links.discard)(frozenset((i, j)))

    return _while(f"link {i}–{j} is cut", at_s, for_s, act)


def lose(share: float, at_s: float = 0.0, for_s: float = math.inf) -> Fault:
    """A share of all messages is lost, beyond what is lost already."""
    return _share("loss", share, at_s, for_s)


def duplicate(share: float, at_s: float = 0.0, for_s: float = math.inf) -> Fault:
    """A share of all messages comes twice, beyond what does already."""
    return _share("duplicate", share, at_s, for_s)


def corrupt(share: float, at_s: float = 0.0, for_s: float = math.inf) -> Fault:
    """Of a share of all payloads one bit is flipped on the way, beyond those already."""
    return _share("corrupt", share, at_s, for_s)


def _resume_all(cluster: Cluster) -> None:
    cluster.resume_all()


def _share(name: str, share: float, at_s: float, for_s: float) -> Fault:
    def act(cluster: Cluster, on: bool) -> None:
        before = getattr(cluster.network, name)
        setattr(cluster.network, name, before + (share if on else -share))

    return _while(f"{name} rises by {share}", at_s, for_s, act)


def _while(what: str, at_s: float, for_s: float, turn: Callable[[Cluster, bool], None]) -> Fault:
    def act(cluster: Cluster) -> None:
        turn(cluster, True)
        if for_s < math.inf:
            cluster.at(cluster.now_s + for_s, lambda: turn(cluster, False))

    return Fault(at_s, f"{what} for {for_s} s", act)


def graphs(largest: int = 10) -> SearchStrategy[Topology]:
    """Connected graphs: a random tree plus some edges, rates within three decades."""
    st = _hypothesis("strategies")

    def graph(draw: DrawFn) -> Topology:
        n = draw(st.integers(1, largest))
        edges = {(draw(st.integers(0, j - 1)), j) for j in range(1, n)}
        if n > 1:
            pair = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))
            extra = draw(st.lists(pair.filter(lambda e: e[0] != e[1]), max_size=n))
            edges |= {(min(e), max(e)) for e in extra}
        return Topology.from_edges(n, edges, [draw(st.floats(0.05, 50.0)) for _ in edges])

    return st.composite(graph)()  # type: ignore[no-any-return]


def systems(max_slots: int = len(SLOTS)) -> SearchStrategy[System]:
    """Any flow, probe, residual, message and mix of order 1; a kick of slot 0, well away from 0 so
    that no rounding is blown up, or none at all."""
    st, arrays = _hypothesis("strategies"), _hypothesis("extra.numpy").arrays

    def system(draw: DrawFn) -> System:
        size = draw(st.integers(1, max_slots))
        vector = arrays(float, size, elements=st.floats(-2, 2, allow_subnormal=False))
        first = draw(st.sampled_from([0.0, 1.0, -1.0]) | st.floats(0.5, 2) | st.floats(-2, -0.5))
        kick = draw(vector) if first else np.zeros(size)
        kick[0] = first
        flow = draw(arrays(float, (size, size), elements=st.floats(-1, 1, allow_subnormal=False)))
        probe, residual, message, mix = (draw(vector) for _ in range(4))
        return System(SLOTS[:size], flow, probe, residual, kick, message, mix)

    return st.composite(system)()  # type: ignore[no-any-return]


def schedules() -> SearchStrategy[Schedule]:
    """Every schedule of decent. Those with a window need a planned number of steps."""
    st, s = _hypothesis("strategies"), schedule_
    periods = st.none() | st.floats(0.1, 4)
    plain = st.builds(s.Poisson) | st.builds(s.Periodic) | st.builds(s.OnePeer, periods)
    bounds = st.lists(st.integers(0, 10), min_size=2, max_size=2, unique=True).map(sorted)
    windows = st.builds(
        lambda ends, keep, base: s.Window(ends[0] / 10, ends[1] / 10, keep, base),
        bounds, st.booleans(), plain,
    )  # fmt: skip
    return plain | windows | st.builds(s.Never)  # type: ignore[no-any-return]


def fault_scripts(
    workers: int, until_s: float, deaths: bool = False, most: int = 4, restarts: bool = False
) -> SearchStrategy[list[Fault]]:
    """What may go wrong by `until_s`, when all of it is over; workers die only with `deaths`, and
    restart only with `restarts`."""
    st = _hypothesis("strategies")
    who, share, time = st.integers(0, workers - 1), st.floats(0, 0.4), st.floats(0, until_s)
    span = st.tuples(time, time).map(lambda ends: (min(ends), max(ends) - min(ends)))
    makers = [
        st.builds(lambda worker, span: pause(worker, *span), who, span),
        st.builds(lambda worker, span, by: slow(worker, by, *span), who, span, st.floats(1, 5)),
        st.builds(lambda i, j, span: cut(i, j, *span), who, who, span),
        st.builds(lambda by, span: lose(by, *span), share, span),
        st.builds(lambda by, span: duplicate(by, *span), share, span),
        st.builds(lambda by, span: corrupt(by, *span), share, span),
        *([st.builds(kill, who, time)] if deaths else []),
        *([st.builds(restart, who, time)] if restarts else []),
    ]
    return st.lists(st.one_of(makers), max_size=most)  # type: ignore[no-any-return]


def _hypothesis(module: str) -> Any:
    try:
        return importlib.import_module(f"hypothesis.{module}")
    except ImportError:
        raise MissingExtra(
            "hypothesis is not installed", "it, for strategies", "pip install decent[testing]"
        ) from None
