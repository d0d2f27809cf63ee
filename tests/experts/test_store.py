"""The folder of an ensemble: what is saved comes back, what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import torch

from decent.errors import ModelError, TaskError
from decent.experts import files, networks, partition, settings, store
from decent.experts.prediction import AsVelocity, Prediction
from decent.experts.store import Record

OPTIONS = {"width": 8, "depth": 1}
EXPERT = Record(network="mlp", shape=(6,), options=OPTIONS, steps=10, seed=3, loss=0.5)
ROUTER = Record(network="mlp", shape=(6,), options=OPTIONS, outputs=3)


def put(folder: Path, record: Record, seed: int = 0) -> Record:
    """An untrained module of that kind, its weights drawn."""
    options = record.options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = networks.build(
            record.network, record.shape, record.classes, record.outputs, **options
        )
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return store.save(folder, module, record)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    overrides = [
        "data.source=digits", "data.latent=pca:6", "partition.experts=3", "partition.fine=12",
        "partition.features=latent",
    ]  # fmt: skip
    partition.partition(settings.load(None, overrides), tmp_path)
    for k in range(3):
        put(tmp_path / store.expert(k), EXPERT, seed=k)
    put(tmp_path / store.ROUTER, ROUTER)
    return tmp_path


def test_a_module_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = put(tmp_path / "m", EXPERT)
    before = torch.get_rng_state()
    module, record = store.load(tmp_path / "m", digest=saved.digest)
    assert torch.equal(torch.get_rng_state(), before)
    assert record == saved == msgspec.structs.replace(EXPERT, digest=saved.digest)
    assert not module.training
    assert {put(tmp_path / "n", EXPERT).digest for _ in range(8)} == {saved.digest}
    x, t = torch.randn(4, 6), torch.rand(4)
    torch.testing.assert_close(store.load(tmp_path / "n")[0](x, t), module(x, t), rtol=0, atol=0)


def test_the_folder_is_laid_out_as_a_pipeline(home: Path) -> None:
    index = json.loads((home / "model_index.json").read_text())
    assert index["_class_name"] == "DecentPipeline"
    parts = {name for name in index if not name.startswith("_")}
    assert parts == {"expert_0", "expert_1", "expert_2", "router"}
    assert index["router"] == ["decent.experts.store", "load"]
    for part in parts:
        assert {path.name for path in (home / part).iterdir()} == {
            "config.json", "diffusion_pytorch_model.safetensors",
        }  # fmt: skip


@pytest.mark.parametrize("lazy", [False, True])
def test_an_opened_ensemble_is_its_experts(home: Path, lazy: bool) -> None:
    pipeline = store.open_pipeline(home, lazy=lazy)
    assert pipeline.pi == pipeline.manifest.pi
    x, t = torch.randn(5, 6), torch.rand(5)
    with torch.no_grad():
        answer = pipeline.ensemble("full")(x, t)
        weights = pipeline.router(x, t).softmax(1)
        each = [store.load(home / store.expert(k))[0](x, t) for k in range(3)]
    expected = sum(weights[:, k, None] * each[k] for k in range(3))
    torch.testing.assert_close(answer, expected)
    assert pipeline.ensemble().strategy.routed


def test_other_predictions_become_velocities(home: Path) -> None:
    put(home / "expert_1", msgspec.structs.replace(EXPERT, prediction=Prediction("noise")))
    experts = store.open_pipeline(home).experts
    assert [isinstance(each, AsVelocity) for each in experts] == [False, True, False]


def test_without_a_router(home: Path) -> None:
    for path in (home / "router").iterdir():
        path.unlink()
    pipeline = store.open_pipeline(home)
    assert pipeline.router is None
    assert pipeline.ensemble("ancestral").experts


def test_a_lazy_expert_may_be_elsewhere(home: Path) -> None:
    """Without its tensors, or altogether; it is missed when it is used."""
    (home / "expert_0" / files.WEIGHTS).unlink()
    (home / "expert_1" / files.CONFIG).unlink()
    pipeline = store.open_pipeline(home, lazy=True)
    assert "expert_0" in pipeline.records
    assert pipeline.classes == 0
    x, t = torch.randn(2, 6), torch.rand(2)
    for k in (0, 1):
        with pytest.raises(ModelError, match=f"expert_{k}/.*No such file"):
            pipeline.experts[k](x, t)
    with torch.no_grad():
        assert pipeline.experts[2](x, t).shape == (2, 6)


def test_what_is_trained_is_listed(home: Path) -> None:
    (home / "expert_1" / files.CONFIG).unlink()
    found = store.trained(home, 3)
    assert list(found) == ["expert_0", "expert_2", "router"]
    assert found["expert_0"].loss == 0.5


def test_ensembles_that_do_not_fit_are_refused(home: Path) -> None:
    replace = msgspec.structs.replace
    for name, record, said in (
        ("router", replace(ROUTER, outputs=4), "tells 4 experts apart: expected 3"),
        ("router", replace(ROUTER, outputs=None), "tells None"),
        ("router", replace(ROUTER, shape=(7,)), r"samples \[7\]: expected \[6\]"),
        ("expert_1", replace(EXPERT, shape=(7,)), r"expert_1 is of samples \[7\]"),
        ("expert_1", replace(EXPERT, outputs=3), "is a router"),
        ("expert_1", replace(EXPERT, classes=2), "on 2 classes: expected 0, as expert_0"),
        ("router", replace(ROUTER, classes=2), "on 2 classes: expected 0"),
    ):
        put(home / name, record)
        with pytest.raises(ModelError, match=said):
            store.open_pipeline(home)
        put(home / name, ROUTER if name == "router" else EXPERT)
    (home / "expert_2" / files.CONFIG).unlink()
    with pytest.raises(ModelError, match=r"no expert_2.*decent experts train"):
        store.open_pipeline(home)


def test_damage_is_refused(home: Path) -> None:
    folder = home / "expert_0"
    weights, config = folder / files.WEIGHTS, folder / files.CONFIG
    whole, text = weights.read_bytes(), config.read_text()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=r"digest.*copy the folder again"):
            store.load(folder)
    weights.unlink()
    with pytest.raises(ModelError, match="No such file"):
        store.load(folder)
    weights.write_bytes(whole)
    for broken, said in (
        ("{", "config.json"), ("[]", "config.json"), ('{"network": "mlp"}', "shape"),
        (text.replace('"steps"', '"stesp"'), "stesp"),
    ):  # fmt: skip
        config.write_text(broken)
        with pytest.raises(ModelError, match=said):
            store.load(folder)
    config.write_text(text.replace('"width": 8', '"width": 9'))
    with pytest.raises(ModelError, match="size mismatch"):
        store.load(folder)
    config.write_text(text)
    store.load(folder)
    with pytest.raises(ModelError, match="expected 0123"):
        store.load(folder, digest="0123")


def test_a_lazy_expert_is_still_the_one_that_was_opened(home: Path) -> None:
    pipeline = store.open_pipeline(home, lazy=True)
    put(home / "expert_0", EXPERT, seed=77)
    with pytest.raises(ModelError, match="digest"), torch.no_grad():
        pipeline.ensemble("full")(torch.randn(2, 6), torch.rand(2))


def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="decent experts partition"):
        store.open_pipeline(tmp_path)
    with pytest.raises(ModelError, match="a folder that decent has written"):
        store.load(tmp_path)
