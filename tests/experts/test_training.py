"""Training: the same to the bit, whatever else runs and however often it is broken off."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from decent.errors import ConfigError, ModelError, RuntimeFault
from decent.experts.average import Average
from decent.experts.flow import Flow
from decent.experts.networks import build
from decent.experts.settings import TrainingTable
from decent.experts.training import Training, rate

TABLE = TrainingTable(steps=30, batch_size=8, warmup=5, ema=0.9, weight_decay=0.1)
Weights = dict[str, torch.Tensor]


def made(name: str = "expert_0", table: TrainingTable = TABLE, seed: int = 3) -> Training:
    torch.manual_seed(7)
    module = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.3), nn.Linear(4, 2))
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(1))

    def objective(module: nn.Module) -> torch.Tensor:
        rows = torch.randint(50, (8,))
        return (module(x[rows]) - torch.randn(8, 2)).square().mean()

    return Training(module, objective, table, seed, name)


def weights(training: Training) -> Weights:
    return training.trained().state_dict()


def same(a: Weights, b: Weights) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_others_beside_it_change_nothing() -> None:
    alone, beside, other = made(), made(), made("expert_1")
    alone.run()
    for _ in range(30):
        other.step()
        torch.randn(3)
        beside.step()
    assert same(weights(alone), weights(beside))
    assert not same(weights(alone), weights(other))


def test_the_global_generator_is_left_alone() -> None:
    training = made()
    torch.manual_seed(5)
    expected = torch.randn(4)
    torch.manual_seed(5)
    training.run()
    assert torch.equal(torch.randn(4), expected)


@pytest.mark.parametrize("at", [1, 12, 29])
def test_broken_off_and_resumed_is_the_same_to_the_bit(tmp_path: Path, at: int) -> None:
    def breaks(training: Training) -> None:
        if training.steps == at:
            raise KeyboardInterrupt

    file, whole = tmp_path / "deep" / "expert_0.safetensors", made()
    whole.run()
    with pytest.raises(KeyboardInterrupt):
        made().run(breaks, file)
    resumed = made()
    resumed.run(checkpoint=file)
    assert resumed.steps == 30
    assert resumed.loss == whole.loss
    assert same(weights(resumed), weights(whole))


def test_a_checkpoint_is_there_from_the_start(tmp_path: Path) -> None:
    def look(training: Training) -> None:
        assert (tmp_path / "c.safetensors").is_file()

    made().run(look, tmp_path / "c.safetensors")


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    made().save(file)
    for other in (made("expert_1"), made(seed=4), made(table=TrainingTable(steps=31))):
        with pytest.raises(ConfigError, match="another training"):
            other.load(file)
    file.write_bytes(b"broken")
    with pytest.raises(ModelError, match="--again"):
        made().load(file)


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_expert_and_step(factor: float) -> None:
    training = made("expert_5")
    first = training.objective
    training.objective = lambda module: first(module) * (1 if training.steps < 4 else factor)
    with pytest.raises(RuntimeFault, match="expert_5, step 4: the loss"):
        training.run()


def test_the_gradient_is_clipped() -> None:
    """With Adam's first step of size lr whatever the gradient, look at the moment instead."""
    training = made(table=TrainingTable(steps=1, clip=1e-3))
    training.step()
    moment = training._state()["optimizer.exp_avg"]
    assert moment.norm() == pytest.approx(0.1 * 1e-3, rel=1e-4)


def test_a_batch_of_batch_norm_statistics_is_kept(tmp_path: Path) -> None:
    def norm() -> Training:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        return Training(module, lambda m: m(torch.randn(9, 2)).square().mean(), TABLE, 0, "e")

    whole, half, rest = norm(), norm(), norm()
    whole.run()
    for _ in range(11):
        half.step()
    half.save(tmp_path / "c.safetensors")
    rest.run(checkpoint=tmp_path / "c.safetensors")
    assert same(weights(rest), weights(whole))


def test_the_rate_rises_stays_and_falls() -> None:
    table = TrainingTable(steps=100, warmup=10, decay=0.2)
    rates = [rate(step, table) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:81] == [1.0] * 72
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
    still = TrainingTable(steps=5, warmup=0, decay=0.0)
    assert [rate(step, still) for step in range(5)] == [1.0] * 5


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_average_has_no_bias_towards_its_beginning(decay: float) -> None:
    values = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    average = Average(torch.full((3,), 100.0, dtype=torch.float64), decay)
    for n, value in enumerate(values, 1):
        average.update(value, n)
    powers = decay ** torch.arange(19, -1, -1, dtype=torch.float64)
    expected = (powers[:, None] * values).sum(0) / powers.sum()
    torch.testing.assert_close(average.value, expected)


def test_an_expert_learns_a_gaussian() -> None:
    """Data N(0, ¼): the best velocity is known, and its loss at uniform times beats the skip's."""
    torch.manual_seed(0)
    x = 0.5 * torch.randn(2000, 2)
    table = TrainingTable(steps=250, batch_size=64, lr=3e-3, ema=0.98, times="uniform")
    training = Training(build("mlp", (2,), width=16), Flow(x, None, table), table, 0, "e")
    training.run()
    t = torch.rand(4000)
    x_t = torch.randn(4000, 2) * ((1 - t) ** 2 / 4 + t**2).sqrt()[:, None]
    best = (t - (1 - t) / 4) / ((1 - t) ** 2 / 4 + t**2)
    error = (training.trained()(x_t, t) - best[:, None] * x_t).square().mean()
    assert error < 0.05


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(ModelError, match="learnable"):
        Training(nn.ReLU(), lambda m: torch.zeros(()), TABLE, 0, "e")
