"""A partition: every sample once, new ones by the same rule, other data and damage refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from decent.errors import ConfigError, InputError, MissingExtra, ModelError, TaskError
from decent.experts import features, latent, manifest, partition, settings, sources
from decent.experts.evaluation import held_out
from decent.experts.manifest import Manifest

SMALL = ["data.latent=pca:8", "partition.features=latent", "partition.fine=24"]


def made(folder: Path, *overrides: str) -> Manifest:
    base = ["data.source=digits", "partition.experts=4", *SMALL]
    return partition.partition(settings.load(None, [*base, *overrides]), folder)


def pixels(x: Tensor) -> Tensor:
    return x.flatten(1)[:, 10:20]


def not_finite(x: Tensor) -> Tensor:
    return x.flatten(1) / 0


def one_for_all(x: Tensor) -> np.ndarray:
    return np.zeros((1, 3))


def planted() -> tuple[np.ndarray, np.ndarray]:
    """400 samples, then a near-copy of each of the first 150."""
    draw = np.random.default_rng(5)
    x = draw.standard_normal((400, 6))
    copies = x[:150] + 1e-3 * draw.standard_normal((150, 6))
    return np.concatenate([x, copies]).astype(np.float32), np.arange(550) % 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ensemble")
    made(folder, "data.validation=0.1")
    return folder


def test_every_sample_is_somebodys_or_held_out(home: Path) -> None:
    read = manifest.read(home)
    parts = [read.indices(k) for k in range(read.experts)]
    everyone = np.concatenate([*parts, read.validation()])
    np.testing.assert_array_equal(np.sort(everyone), np.arange(1400))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), read.training())
    assert [len(part) for part in parts] == list(read.sizes)
    labels = sources.load("digits").labels.numpy()
    counted = [tuple(np.bincount(labels[part], minlength=10)) for part in parts]
    assert list(read.label_counts) == counted
    assert sum(read.pi) == pytest.approx(1)
    assert 130 <= read.held_out == len(read.validation()) <= 140
    assert max(read.sizes) <= 1.25 * sum(read.sizes) / 4


def test_new_samples_go_where_they_would_have_gone(home: Path) -> None:
    data, read = sources.load("digits"), manifest.read(home)
    np.testing.assert_array_equal(partition.assign(home, data.rows(slice(None))), read.clusters())
    np.testing.assert_array_equal(
        partition.assign(home, data.rows(slice(7, 8))), read.clusters()[7:8]
    )
    for k in range(4):
        assert read.centre(k).shape == (8,)


@pytest.mark.parametrize("model", ["pca:5", "pca:8", "latent", "pixels", f"{__file__}:pixels"])
def test_every_feature_model_is_restored(tmp_path: Path, model: str) -> None:
    read = made(tmp_path, f"partition.features={model}")
    assert (tmp_path / "features").exists() == (model == "pca:5")
    assert read.features == model
    rows = sources.load("digits").rows(slice(300, 600))
    np.testing.assert_array_equal(partition.assign(tmp_path, rows), read.clusters()[300:600])


def test_the_same_again(home: Path, tmp_path: Path) -> None:
    again = made(tmp_path / "again", "data.validation=0.1")
    assert again.arrays == manifest.read(home).arrays
    assert made(tmp_path / "other", "data.validation=0.1", "seed=1").arrays != again.arrays
    with pytest.raises(ConfigError, match="has a partition"):
        made(tmp_path / "again")


def test_mapped_data_is_never_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", np.tile(planted()[0], (20, 1)))
    read, asked = sources.Data.rows, []

    def rows(data: sources.Data, which: slice) -> Tensor:
        asked.append(len(read(data, which)))
        return read(data, which)

    monkeypatch.setattr(sources.Data, "rows", rows)
    made(tmp_path / "out", f"data.source={tmp_path / 'x.npy'}", "data.latent=pca:3")
    assert max(asked) == 4096 < 11_000
    assert [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("method", ["features", "labels", "random"])
def test_planted_duplicates_stay_on_one_side(tmp_path: Path, method: str) -> None:
    overrides = ["data.latent=none", f"data.source={__file__}:planted", "data.validation=0.2"]
    read = made(tmp_path, *overrides, f"partition.method={method}", "partition.experts=3")
    held = np.isin(np.arange(550), read.validation())
    np.testing.assert_array_equal(held[:150], held[400:])
    assert 0.15 < held.mean() <= 0.2


def test_by_labels_and_by_chance(tmp_path: Path) -> None:
    labels = sources.load("digits").labels
    read = made(tmp_path, "partition.method=labels", "partition.experts=10")
    np.testing.assert_array_equal(read.clusters(), labels)
    np.testing.assert_array_equal(read.assign_labels(np.array([3, 0])), [3, 0])
    assert read.features == ""
    with pytest.raises(TaskError, match="labels"):
        read.assign_labels(np.array([10]))
    with pytest.raises(TaskError, match="by labels: expected one by features"):
        partition.assign(tmp_path, torch.zeros(1, 1, 8, 8))
    chance = made(tmp_path / "chance", "partition.method=random")
    assert chance.sizes == (350,) * 4
    with pytest.raises(ConfigError, match="has 10 labels"):
        made(tmp_path / "labels", "partition.method=labels")


def with_tests() -> sources.Data:
    digits = sources.load("digits")
    assert digits.labels is not None
    return sources.Data(
        digits.x[40:], digits.labels[40:], test=sources.Data(digits.x[:40], digits.labels[:40])
    )


def test_the_datas_tests_have_clusters_where_these_are_known(tmp_path: Path) -> None:
    source = f"data.source={__file__}:with_tests"
    made(tmp_path / "labels", source, "partition.method=labels", "partition.experts=10")
    made(tmp_path / "random", source, "partition.method=random")
    found = [
        held_out(partition.reopen(tmp_path / each), tmp_path / each)[2]
        for each in ("labels", "random")
    ]
    assert torch.equal(found[0], sources.load("digits").labels[:40])
    assert found[1] is None


def test_reopened_with_its_data(home: Path) -> None:
    divided = partition.reopen(home)
    z = divided.latents(divided.manifest.indices(2))
    assert z.shape == (divided.manifest.sizes[2], 8)
    assert divided.latents(np.arange(0)).shape == (0, 8)
    whole = divided.latents(np.arange(1400)).double()
    assert float(whole.square().mean()) == pytest.approx(1, rel=1e-5)


def test_other_data_is_refused(home: Path, tmp_path: Path) -> None:
    read, data = manifest.read(home), sources.load("digits")
    manifest.check(read, data)
    assert data.test is not None
    with pytest.raises(TaskError, match="samples 397: expected 1400"):
        manifest.check(read, data.test)
    flat = sources.Data(data.rows(slice(None)).flatten(1), data.labels)
    with pytest.raises(TaskError, match=r"shape \(64,\)"):
        manifest.check(read, flat)
    changed = data.rows(slice(None)).clone()
    changed[5, 0, 3, 3] += 0.01
    with pytest.raises(TaskError, match="digest"):
        manifest.check(read, sources.Data(changed, data.labels))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["partition.experts=1401", "partition.fine=1401"], r"1401 for 1400 samples"),
        (["partition.fine=1401"], "1401 fine centroids of 1400 samples"),
        (["data.source=mnist"], "data 'mnist'"),
        (["data.latent=vae"], "latent 'vae'"),
        (["data.latent=pca:65"], "at most 64"),
        (["partition.features=dino"], "partition.features = 'dino'"),
        (["partition.features=pca:many"], "pca:many"),
        (["partition.features=nowhere:features"], "nowhere:features"),
        ([f"partition.features={__file__}:SMALL"], "a function of samples"),
        ([f"partition.features={__file__}:not_finite"], "not finite"),
        ([f"partition.features={__file__}:one_for_all"], r"shape \(1, 3\)"),
        (["data.validation=0.1", "partition.duplicates=0.99"], "nothing can be held out"),
    ],
)
def test_what_cannot_be_divided_is_refused(tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(tmp_path, *overrides)
    assert not (tmp_path / manifest.FILE).exists()


def test_labels_that_are_not_there_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", planted()[0])
    source = f"data.source={tmp_path / 'x.npy'}"
    for override in ("partition.method=labels", "data.conditional=true"):
        with pytest.raises(ConfigError, match="no labels"):
            made(tmp_path / "out", source, "data.latent=none", override)


def test_no_sample_left_is_refused(tmp_path: Path) -> None:
    overrides = ["data.validation=0.9", "partition.method=random", "partition.experts=550"]
    with pytest.raises(TaskError, match="no sample is left to train expert"):
        made(tmp_path, f"data.source={__file__}:planted", "data.latent=none", *overrides)


def test_a_damaged_or_foreign_folder_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="decent experts partition"):
        manifest.read(tmp_path)
    made(tmp_path, "partition.method=random")
    facts = json.loads((tmp_path / manifest.FILE).read_text())
    arrays = (tmp_path / manifest.ARRAYS).read_bytes()
    (tmp_path / manifest.ARRAYS).write_bytes((home / manifest.ARRAYS).read_bytes())
    with pytest.raises(TaskError, match=r"is not what manifest\.json speaks of"):
        manifest.read(tmp_path)
    (tmp_path / manifest.ARRAYS).write_bytes(arrays)
    for change, said in (({"version": 99}, "version 99"), ({"extra": 1}, "unknown field")):
        (tmp_path / manifest.FILE).write_text(json.dumps(facts | change))
        with pytest.raises(TaskError, match=said):
            manifest.read(tmp_path)
    (tmp_path / manifest.FILE).write_text("{")
    with pytest.raises(TaskError, match="a manifest of decent"):
        manifest.read(tmp_path)


def test_features_of_other_kinds_are_refused(home: Path) -> None:
    read = manifest.read(home)
    with pytest.raises(TaskError, match=r"\(m, 8\)"):
        read.assign(np.zeros((3, 9)))
    with pytest.raises(TaskError, match="not finite"):
        read.assign(np.full((3, 8), np.nan))
    with pytest.raises(ModelError, match="samples of shape"):
        partition.assign(home, torch.zeros(3, 64))
    with pytest.raises(TaskError, match="expert 4: expected 0 to 3"):
        read.indices(4)


def test_a_vision_transformer_sees_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAKE: transformers, with a model whose tokens are the means of the channels."""
    seen = []

    class Net:
        def eval(self) -> Net:
            return self

        def to(self, device: str) -> Net:
            return self

        def __call__(self, pixel_values: Tensor) -> SimpleNamespace:
            seen.append(pixel_values.shape)
            return SimpleNamespace(last_hidden_state=pixel_values.mean((2, 3))[:, None])

    fake = SimpleNamespace(AutoModel=SimpleNamespace(from_pretrained=lambda name: Net()))
    monkeypatch.setitem(sys.modules, "transformers", fake)
    data = sources.load("digits")
    encoder = latent.latent("none", data)
    model = features.features("transformers:some/model", data, encoder)
    rows = model(data.rows(slice(0, 70)))
    assert seen == [(64, 3, 224, 224), (6, 3, 224, 224)]
    np.testing.assert_allclose((rows**2).sum(1), 1, rtol=1e-5)
    with pytest.raises(TaskError, match="images"):
        model(torch.zeros(2, 64))


def test_without_transformers_the_remedy_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="pip install transformers"):
        made(tmp_path, "partition.features=transformers:facebook/dinov2-small")
