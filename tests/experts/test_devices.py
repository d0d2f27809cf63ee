"""Devices. Torch's "meta" stands for one with memory of its own: what is not moved to it fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from decent.cli import main
from decent.errors import ConfigError
from decent.experts import isolated
from decent.experts.distil import Taught
from decent.experts.flow import Flow
from decent.experts.metrics import PairedLoss, multiply_adds
from decent.experts.networks import build
from decent.experts.router import Routing, calibration, prior_error
from decent.experts.settings import RouterTable, TrainingTable
from decent.experts.training import Objective, Training
from decent.experts.work import Options
from decent.learning import devices
from decent.learning.devices import each_known, known

TABLE = TrainingTable(batch_size=8, steps=3)
X, CLUSTERS, LABELS = torch.randn(50, 4), torch.arange(50) % 2, torch.arange(50) % 3


def network(device: str = "cpu", outputs: int | None = None, kind: str = "mlp") -> nn.Module:
    torch.manual_seed(0)
    return build(kind, (4,), 3, outputs, width=16).to(device)


def flow(device: str) -> Objective:
    return Flow(X, LABELS, TABLE)


def routing(device: str) -> Objective:
    return Routing(X, CLUSTERS, LABELS, RouterTable(batch_size=8, balanced=True))


def taught(device: str) -> Objective:
    return Taught(X, CLUSTERS, LABELS, [network(device), network(device)], TABLE)


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_there", lambda: ["cpu", "cuda:0", "cuda:1"])


@pytest.mark.usefixtures("three")
def test_devices_by_name() -> None:
    assert known("cuda") == torch.device("cuda")
    assert each_known("cuda:0, cuda:1") == ["cuda:0", "cuda:1"]
    for name in ("cuda:2", "gpu", "", "cuda:0,cuda:1"):
        with pytest.raises(ConfigError, match=f"device '{name}': expected cpu, cuda:0, cuda:1"):
            known(name)
    with pytest.raises(ConfigError, match="cuda:9"):
        each_known("cuda:0,cuda:9")


@pytest.mark.parametrize(
    "command",
    ["experts train", "experts router", "experts distil", "experts evaluate", "sample",
     "serve --expert 0"],
)  # fmt: skip
def test_a_device_that_is_not_there_is_refused_before_anything(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decent.experts.manifest.read", lambda folder: SimpleNamespace(experts=2))
    done = CliRunner().invoke(main, [*command.split(), str(tmp_path), "--device", "cuda:99"])
    assert done.exit_code == 2
    assert "device 'cuda:99': expected cpu" in done.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("objective", "outputs"), [(flow, None), (routing, 2), (taught, None)])
def test_a_step_is_taken_where_the_training_is_with_the_same_draws(
    objective: Callable[[str], Objective],
    outputs: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    item = Tensor.item
    monkeypatch.setattr(Tensor, "item", lambda self: 1.0 if self.is_meta else item(self))
    here, there = (
        Training(network("cpu", outputs), objective(device), TABLE, 0, "e", device)
        for device in ("cpu", "meta")
    )
    for _ in range(2):
        here.step()
        there.step()
    assert torch.equal(here._random, there._random)
    state = there._state()
    assert state.pop("random").device.type == "cpu"
    assert {value.device.type for value in state.values()} == {"meta"}
    here.step()
    here.save(tmp_path / "c.safetensors")
    there.load(tmp_path / "c.safetensors")
    there.step()
    assert there.steps == 4


class Elsewhere(nn.Module):
    """Has a weight on another device, and wants to be asked there; answers here."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self.answer = nn.Parameter(torch.zeros(1, device="meta")), answer

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        assert {each.device.type for each in (x, t, condition)} == {"meta"}
        return self.answer(x)


def test_models_are_evaluated_where_they_are() -> None:
    paired = PairedLoss(X, LABELS)
    still = Elsewhere(lambda x: torch.zeros(x.shape))
    torch.testing.assert_close(paired(still), paired.u.square().mean(1))
    router = Elsewhere(lambda x: torch.zeros(len(x), 2))
    assert prior_error(router, [0.5, 0.5], (4,), LABELS) == pytest.approx(0)
    assert len(calibration(router, X, CLUSTERS, LABELS)) == 10
    assert multiply_adds(still, (4,), LABELS[:1]) == 0


def test_trainings_share_out_the_devices() -> None:
    given: list[str] = []

    class Process:
        pid, exitcode = 1, None

        def __init__(self, target: Any, args: tuple[isolated.Job, Any]) -> None:
            given.append(args[0].options.device)

        def start(self) -> None:
            pass

    jobs = [isolated.Job(Path(), f"expert_{k}", False, Options()) for k in range(5)]
    crew = isolated._Crew(jobs, 4, lambda statuses: None, ["cuda:0", "cuda:1"])
    crew._context = SimpleNamespace(  # type: ignore[assignment]
        Process=Process, Pipe=lambda: (None, SimpleNamespace(close=lambda: None))
    )
    for job in jobs[:4]:
        crew._start(job)
    assert given == ["cuda:0", "cuda:1"] * 2
    del crew._running["expert_1"]
    crew._start(jobs[4])
    assert given[-1] == "cuda:1"


@pytest.mark.parametrize(("kind", "shape"), [("mlp", (4,)), ("dit", (1, 8, 8))])
def test_in_bfloat16_weights_and_answers_stay_float32(kind: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = 0.5 * torch.randn(200, *shape)
    seen: set[torch.dtype] = set()
    losses, answers = {}, set()
    for precision in ("float32", "bfloat16"):
        table = TrainingTable(batch_size=32, steps=20, precision=precision)  # type: ignore[arg-type]
        torch.manual_seed(0)
        module, descend = build(kind, shape, width=16), Flow(x, None, table)

        def objective(model: nn.Module, descend: Flow = descend) -> Tensor:
            model.register_forward_hook(lambda *hooked: answers.add(hooked[-1].dtype))
            return descend(model)

        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                layer.register_forward_hook(lambda *hooked: seen.add(hooked[-1].dtype))
        training = Training(module, objective, table, 0, "e")
        training.run()
        assert {value.dtype for value in training.trained().parameters()} == {torch.float32}
        losses[precision] = training.loss
    assert seen == {torch.float32, torch.bfloat16}
    assert answers == {torch.float32}
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
