"""Probes, accounts and strides: what is kept of a state in a few random directions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decent.dynamics import Acid, Array, Dadao
from decent.schedule import Poisson
from decent.testing import Cluster, Network
from decent.topology import family
from decent.worker import Ledger, Worker
from decent.worker.accounts import Strides
from decent.worker.ledger import kept_values
from decent.worker.probes import DENSE, PROBES, WIDTH, Probes

from .common import examples


def vectors(probes: Probes, chunk: int, size: int) -> Array:
    """[PROBES, size]: the probes themselves."""
    return np.array([probes(chunk, unit) for unit in np.eye(size)]).T


@pytest.mark.parametrize("dense", [0, DENSE])
@pytest.mark.parametrize("size", [1, 5, WIDTH, WIDTH + 1, 3 * WIDTH - 1])
def test_a_probe_is_a_vector_of_signs(
    size: int, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decent.worker.probes.DENSE", dense)
    probes = Probes(1)
    p = vectors(probes, 0, size)
    assert p.shape == (PROBES, size)
    assert set(np.unique(p)) <= {-1.0, 1.0}
    v = np.random.default_rng(0).normal(size=size)
    np.testing.assert_allclose(probes(0, v), p @ v, atol=1e-12)
    np.testing.assert_array_equal(vectors(Probes(1), 0, size), p)  # everyone draws the same
    here = v.copy()
    product = probes.on(0, here)
    here *= 2.0
    np.testing.assert_allclose(product(), 2 * (p @ v), atol=1e-12)
    if size > 5:
        assert not np.array_equal(vectors(Probes(2), 0, size), p)
        assert not np.array_equal(vectors(Probes(1), 1, size), p)
        assert not np.array_equal(p[0], p[1])


def test_entries_are_independent_pair_by_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over seeds: E[p_k p_l] = 0 and E⟨p, v⟩² = ‖v‖², also across rows."""
    monkeypatch.setattr("decent.worker.probes.DENSE", 0)
    size, seeds = 2 * WIDTH, 400
    v = np.random.default_rng(0).normal(size=size)
    sums = np.array([Probes(seed)(0, v) for seed in range(seeds)]).ravel()
    assert np.mean(sums**2) == pytest.approx(v @ v, rel=5 * np.sqrt(8 / sums.size))
    pair = np.zeros(size)
    pair[[3, WIDTH + 3]] = 1.0
    products = np.array([Probes(seed)(0, pair)[0] for seed in range(seeds)])
    assert np.mean(products == 0) == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(seeds))


@pytest.mark.parametrize("size", [DENSE, 131_072])
def test_single_precision_loses_but_a_few_eps_of_the_norm(size: int) -> None:
    for seed in range(10):
        v = np.random.default_rng(seed).normal(size=size).astype(np.float32)
        off = np.abs(Probes(seed)(0, v) - Probes(seed)(0, v.astype(np.float64)))
        assert off.max() < 8 * np.finfo(np.float32).eps * np.linalg.norm(v)


@examples(80)
@given(st.integers(1, 3_000_000), st.sampled_from([256, 1000, 131_072]), st.integers(0, 5))
def test_of_many_values_a_sixteenth_is_in_account(values: int, chunk: int, seed: int) -> None:
    sizes = [min(chunk, values - start) for start in range(0, values, chunk)]
    assert kept_values(False, seed, values, chunk) is None
    assert kept_values(True, seed, values, chunk) == dict(enumerate(sizes))
    kept = kept_values("auto", seed, values, chunk)
    assert kept is not None
    assert kept == kept_values("auto", seed, values, chunk)
    assert all(0 < length <= sizes[each] for each, length in kept.items())
    most = max(DENSE, values // 16)
    assert sum(kept.values()) <= most + chunk
    if values <= DENSE:
        assert sum(kept.values()) == values


def test_strides_add_up_what_is_done_inside() -> None:
    vector, totals = np.zeros(10), np.zeros((2, PROBES))
    probes = Probes(0)
    strides = Strides(vector, 4, {0: 3, 2: 2}, probes, totals)
    with strides:
        vector += 1.0
    vector += 5.0  # somebody else's
    with strides:
        vector[9] -= 3.0
        vector[3] -= 7.0  # not in account
    expected = [probes(0, np.ones(3)), probes(2, np.array([1.0, -2.0]))]
    np.testing.assert_allclose(totals, expected)
    strides.__exit__()  # a turn that never began
    strides.__enter__()
    vector += 1.0  # broken off, and taken up again
    with strides:
        vector -= 1.0
    np.testing.assert_allclose(totals, expected)


def test_lines_are_few_and_hold_what_the_audit_needs() -> None:
    lines: list[dict[str, Any]] = []
    graph = family("line", 2, rate=0.5)
    workers = [
        Worker(
            me, graph, Dadao(1.0, 5.0), Poisson(), Dadao(1.0, 5.0).initial(np.ones(50)), steps=40,
            ledger=Ledger(lines.append, 0, every=10) if me == 0 else None,
        )
        for me in (0, 1)
    ]  # fmt: skip

    def learner(worker: Worker) -> None:
        worker.slots.array[0] *= 0.9

    c = Cluster(workers, Network(graph), learner=learner).run(100.0)
    assert c.finished()
    events = [line["event"] for line in lines]
    stats = workers[0].context.stats
    assert events[0] == "opened"
    assert events[-3:] == ["balance", "merge", "closed"]
    assert events.count("exchange") == stats.completed + stats.answered
    assert [line["step"] for line in lines if line["event"] == "balance"] == [10, 20, 30, 40, 40]
    exchange = next(line for line in lines if line["event"] == "exchange")
    assert exchange["chunks"] == [0]
    assert np.shape(exchange["moved"]) == (1, PROBES)
    assert len(exchange["mix"]) == 6
    workers[0].close(200.0)
    assert len(lines) == len(events)  # closed is closed


def test_accounts_leave_the_state_to_the_bit_as_it_is() -> None:
    def final(ledger: Ledger | None) -> Array:
        graph = family("ring", 4)
        workers = [
            Worker(
                me, graph, Acid(), Poisson(), Acid().initial(np.arange(20.0) * me), steps=30,
                ledger=ledger if me == 0 else None,
            )
            for me in range(4)
        ]  # fmt: skip

        def learner(worker: Worker) -> None:
            worker.slots.array[0] *= 0.97

        Cluster(workers, Network(graph), learner=learner).run(100.0)
        return np.array([worker.slots.array for worker in workers])

    np.testing.assert_array_equal(final(None), final(Ledger(lambda line: None, 0)))
