"""What the tests of the ideal engine share: methods of any kind, small convex problems, and the
definition of what events do, carried out plainly, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from hypothesis import strategies as st
from numpy.typing import NDArray

from decent.dynamics import Acid, Dadao, Dynamics, Gossip, State, System, exchange
from decent.learning.ridge import Quadratic
from decent.simulation.ideal.engine import Engine
from decent.simulation.ideal.events import Events, Source
from decent.simulation.ideal.run import initial_state
from decent.testing import systems
from decent.topology import Topology, family

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Own:
    """A method of the user's: any system, started with something in every slot."""

    made: System
    name: str = "own"

    def system(self, chi_1: float, chi_2: float) -> System:
        return self.made

    def initial(self, x: State) -> State:
        return np.stack([x / (1 + s) for s in range(len(self.made.slots))])


@st.composite
def own_methods(draw: st.DrawFn, probes: bool = False) -> Own:
    """Constants so small that nothing grows beyond measure in a few events; the gradient is taken
    at slot 0, as a worker takes it, or with `probes` anywhere."""
    system = draw(systems().filter(lambda drawn: drawn.mix.any() and drawn.message.any()))
    probe = system.probe if probes else np.eye(len(system.slots))[0]
    return Own(
        replace(
            system, flow=0.2 * system.flow, probe=probe, residual=0.2 * system.residual,
            kick=0.2 * system.kick, mix=0.2 * system.mix,
        )
    )  # fmt: skip


def methods(probes: bool = False) -> st.SearchStrategy[Dynamics]:
    ready = [Gossip(0.1), Acid(0.1), Dadao(0.5, 4.0), Dadao(0.5, 4.0, safety=2.0)]
    return st.sampled_from(ready) | own_methods(probes)


def topologies() -> st.SearchStrategy[Topology]:
    names = st.sampled_from([("ring", 6), ("star", 5), ("complete", 4), ("line", 3), ("ring", 2)])
    rates = st.sampled_from([0.3, 1.0, 2.5])
    return st.builds(lambda n, rate: family(*n).with_models_per_worker(rate), names, rates)


@dataclass(frozen=True)
class Problem:
    """f_i(x) = ½ (x − c_i)ᵀ H_i (x − c_i), and where the workers start."""

    hessians: Array
    centres: Array
    start: Array

    @classmethod
    def drawn(cls, n: int, size: int = 3, seed: int = 0, replicas: int = 1) -> Problem:
        rng = np.random.default_rng(seed)
        turns = np.linalg.qr(rng.normal(size=(n, size, size)))[0]
        hessians = turns @ (rng.uniform(0.5, 4, (n, size, 1)) * turns.transpose(0, 2, 1))
        hessians = (hessians + hessians.transpose(0, 2, 1)) / 2
        return cls(hessians, rng.normal(size=(n, size)), rng.normal(size=(replicas * n, size)))

    @property
    def objective(self) -> Quadratic:
        return Quadratic(self.hessians, self.centres)

    def gradient(self, worker: int, x: State) -> Array:
        k = worker % len(self.centres)
        return np.asarray(self.hessians[k] @ (x - self.centres[k]))

    def state(self, dynamics: Dynamics) -> torch.Tensor:
        return initial_state(dynamics, torch.from_numpy(self.start))

    def engine(
        self, dynamics: Dynamics, topology: Topology, source: Source, patient: bool | None = None
    ) -> Engine:
        system = dynamics.system(topology.chi_1, topology.chi_2)
        return Engine(self.objective, system, source, self.state(dynamics), patient=patient)


@st.composite
def records(draw: st.DrawFn, n: int) -> Events:
    """Up to 14 events, some at the same time."""
    gaps = st.sampled_from([0.0, 0.5]) | st.floats(0, 2)
    ends = st.tuples(st.integers(0, n - 1), st.integers(-1, n - 1))
    drawn = draw(
        st.lists(st.tuples(gaps, ends.filter(lambda both: both[0] != both[1])), max_size=14)
    )
    time = np.cumsum([gap for gap, _ in drawn])
    worker, peer = np.array([both for _, both in drawn], np.int64).reshape(-1, 2).T
    return Events(time, worker, peer)


def plainly(
    problem: Problem, system: System, events: Events, state: torch.Tensor, until: float
) -> tuple[Array, float]:
    """[S, n, d] at `until`, by the definitions; and the largest value there ever was."""
    rows, clock, largest = state.transpose(0, 1).numpy().copy(), np.zeros(state.shape[1]), 1.0
    for time, worker, peer in zip(*(column.tolist() for column in events), strict=True):
        for end in (worker, peer) if peer >= 0 else (worker,):
            system.drift(rows[end], time - clock[end])
            clock[end] = time
        if peer >= 0:
            exchange(system, rows[worker], rows[peer])
        else:
            point = system.gradient_point(rows[worker])
            system.kick_by(rows[worker], problem.gradient(worker, point))
        largest = max(largest, float(np.abs(rows).max()))
    for row, since in zip(rows, clock, strict=True):
        system.drift(row, until - since)
    return rows.transpose(1, 0, 2), max(largest, float(np.abs(rows).max()))
