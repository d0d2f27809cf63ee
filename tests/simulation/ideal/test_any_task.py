"""A task of torch.nn in the ideal engine: the run of every worker's own trainer, to float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from decent import config as configs
from decent.config import Config
from decent.learning import Trainer, bind, to_vector
from decent.simulation.ideal.run import Run, simulate
from decent.simulation.paces import paces
from decent.testing import Cluster, Limits, cluster

STEPS = 30


def described(*overrides: str) -> Config:
    return configs.load(
        "digits",
        [
            "workers=5", f"steps={STEPS}", "batch_size=8", "seed=3", "task.hidden=12",
            "topology.name=star", "topology.rate=0.8", "simulation.fidelity=ideal",
            "simulation.records=3", *overrides,
        ],
    )  # fmt: skip


def in_the_network(config: Config, until: float) -> tuple[Cluster, list[Trainer]]:
    """Trainers whose models live in row 0 of the network's workers; links take no time."""
    topology, n = config.make_topology(), 5
    trainers = [Trainer.of(config, me, n) for me in range(n)]
    starts = np.stack([to_vector(trainer.model) for trainer in trainers])
    c = cluster(
        topology, config.make_dynamics(), config.make_schedule(), initial=starts, steps=1000,
        learner=lambda worker: trainers[worker.me].step(), paces=paces(config, n, unit=True),
        follow=False, seed=config.seed, limits=Limits(chunk=400),
    )  # fmt: skip
    for me, trainer in enumerate(trainers):
        bind(trainer.model, c.workers[me].slots.array[0])
    c.run(until_s=until)
    for worker in c.workers.values():
        worker.refresh(until)
    return c, trainers


@pytest.mark.parametrize(
    "overrides",
    [
        ("dynamics=a2cid2", "init=own"),
        ("dynamics=a2cid2", "optimizer.name=SGD", "optimizer.lr=0.05", "optimizer.momentum=0.9"),
        ("dynamics=gossip", "simulation.gradients=poisson", "optimizer=Adam"),
        ("dynamics=a2cid2", "schedule=periodic", "simulation.step_spread=0.4"),
    ],
    ids=["own starts", "momentum", "poisson", "periodic"],
)
def test_digits_train_as_in_the_network(overrides: tuple[str, ...]) -> None:
    config, until = described(*overrides), 9.0
    run = Run(config, None)
    run.engine.run(until)
    c, trainers = in_the_network(config, until)
    expected = np.stack([worker.slots.plain() for worker in c.workers.values()], 1)
    assert run.engine.tally[0].tolist() == [trainer.steps for trainer in trainers]
    assert run.engine.exchanges == sum(w.context.stats.started for w in c.workers.values()) > 5
    np.testing.assert_allclose(run.engine.state(until), expected, rtol=0, atol=3e-6)
    moved = np.abs(expected[0] - run.population.starts().numpy()).max(axis=1)
    assert (moved > 0.005).all()


def test_many_workers_are_taken_a_cacheful_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def state() -> torch.Tensor:
        config = described("workers=20", "schedule=never", "simulation.step_jitter=0.0")
        run = Run(config, None)
        run.engine.run(3.5)
        return run.engine.state(3.5)

    whole = state()
    monkeypatch.setattr("decent.learning.stacked.TILE_BYTES", 1)
    torch.testing.assert_close(state(), whole, rtol=0, atol=1e-6)


def test_without_exchanges_each_worker_trains_alone() -> None:
    """All through `simulate`, to the measures of the local models and their merge."""
    config = described("schedule=never")
    outcome = simulate(config)
    trainers = [Trainer.of(config, me, 5) for me in range(5)]
    losses = [[trainer.step() for _ in range(STEPS)][-1] for trainer in trainers]
    for result, trainer, loss in zip(outcome["results"], trainers, losses, strict=True):
        assert result["steps"] == STEPS
        assert result["loss"] == pytest.approx(loss, rel=1e-4)
        assert result["metrics"] == pytest.approx(trainer.evaluate(), rel=1e-4)
    weights = torch.tensor([config.make_merge().weight(each.samples) for each in trainers])
    rows = torch.stack([torch.from_numpy(to_vector(trainer.model)) for trainer in trainers])
    torch.nn.utils.vector_to_parameters(
        (weights[:, None] * rows).sum(0) / weights.sum(), trainers[0].model.parameters()
    )
    assert outcome["merged"] == pytest.approx(trainers[0].evaluate(), rel=1e-4)
    assert outcome["merged_among"] == [0, 1, 2, 3, 4]
    assert outcome["ideal"]["exchanges"] == 0
    assert outcome["ideal"]["gradients"] == 5 * STEPS
