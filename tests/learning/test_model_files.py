"""Models as files: whole or absent, and merged tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from decent.errors import ModelError
from decent.learning import Layout, bind, load_state, merge_files, save_model
from decent.learning.checkpoint import load_metadata


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def written(folder: Path, *states: dict[str, Tensor]) -> list[Path]:
    paths = [folder / f"{index}.safetensors" for index in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        save_file(state, path)
    return paths


def test_a_bound_model_with_tied_weights_comes_back(tmp_path: Path) -> None:
    model, path = tied(), tmp_path / "new" / "model.safetensors"
    bind(model, np.zeros(Layout.of(model).numel, np.float32))
    save_model(path, model, {"step": "12"})
    assert path.stat().st_size < 1000 + sum(t.nbytes for t in model.parameters()) + 50
    other = tied()
    other.load_state_dict(load_state(path), strict=True)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert load_metadata(path)["step"] == "12"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]),
)
@settings(max_examples=15, deadline=None)
def test_merged_files_are_the_weighted_mean(
    tmp_path_factory: pytest.TempPathFactory, weights: list[int], dtype: torch.dtype
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    shapes = {"b": (3, 2), "scalar": (), "a": (5,), "none": (0, 4)}
    states = [
        {name: torch.randn(shape).to(dtype) for name, shape in shapes.items()} for _ in weights
    ]
    for index, state in enumerate(states):
        state |= {"count": torch.tensor(index + 3), "mask": torch.tensor([True, index > 0])}
    merge_files(written(folder, *states), folder / "out", weights)
    merged = load_state(folder / "out")
    for name in shapes:
        exact = sum(state[name].double() * w for state, w in zip(states, weights, strict=True))
        torch.testing.assert_close(merged[name], (exact / sum(weights)).to(dtype))
    assert merged["count"] == 3
    assert merged["mask"].tolist() == [True, False]


def test_what_was_merged_is_on_record_and_tied_weights_stay(tmp_path: Path) -> None:
    models, paths = [tied(), tied()], [tmp_path / "a", tmp_path / "b"]
    for model, path in zip(models, paths, strict=True):
        save_model(path, model, {"run": path.name})
    merge_files(paths, tmp_path / "a", [3, 1])
    merged = tied()
    merged.load_state_dict(load_state(tmp_path / "a"), strict=True)
    expected = 0.75 * models[0][0].weight + 0.25 * models[1][0].weight
    torch.testing.assert_close(merged[2].weight, expected)
    record = load_metadata(tmp_path / "a")
    assert json.loads(record["decent.sources"]) == [str(path) for path in paths]
    assert json.loads(record["decent.weights"]) == [3, 1]
    assert record["run"] == "a"


def test_norm_variances_are_pooled(tmp_path: Path) -> None:
    states = [
        {"n.running_mean": torch.tensor([mean]), "n.running_var": torch.tensor([1.0])}
        for mean in (-2.0, 2.0)
    ]
    merge_files(written(tmp_path, *states), tmp_path / "out")
    merged = load_state(tmp_path / "out")
    assert merged["n.running_mean"].item() == 0
    assert merged["n.running_var"].item() == 5.0


W = {"w": torch.ones(2), "v": torch.ones(1)}


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"w": torch.ones(2)}, "1.safetensors has no tensor v: expected it, as in .*0.safetensors"),
        (W | {"z": torch.ones(1)}, "0.safetensors has no tensor z"),
        (
            W | {"w": torch.ones(3)},
            r"1.safetensors: tensor w is F32\[3\]: expected F32\[2\], as in",
        ),
        (W | {"w": torch.ones(2).half()}, r"tensor w is F16\[2\]"),
        (W | {"w": torch.tensor([1, torch.nan])}, "1.safetensors: tensor w holds NaN"),
    ],
)
def test_mismatches_name_files_and_tensor(
    tmp_path: Path, other: dict[str, Tensor], complaint: str
) -> None:
    paths = written(tmp_path, W, other)
    out = tmp_path / "out"
    out.write_bytes(b"before")
    with pytest.raises(ModelError, match=complaint):
        merge_files(paths, out)
    assert out.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 3


def test_what_is_no_model_file_is_refused(tmp_path: Path) -> None:
    (good,) = written(tmp_path, W)
    (tmp_path / "text").write_text("not a model")
    (tmp_path / "cut").write_bytes(good.read_bytes()[:-1])
    for name in ("text", "cut", "absent", "."):
        with pytest.raises(ModelError, match="expected a readable safetensors file"):
            merge_files([good, tmp_path / name], tmp_path / "out")
        with pytest.raises(ModelError):
            load_state(tmp_path / name)
    for weights in ([1.0], [1, 2, 3], [0, 0], [1, -1]):
        with pytest.raises(ModelError, match="weight"):
            merge_files([good, good], tmp_path / "out", weights)
    with pytest.raises(ModelError):
        merge_files([], tmp_path / "out")
    save_file(W, good, {"decent.aliases": '{"x": "y"}'})
    with pytest.raises(ModelError, match="aliases"):
        load_state(good)
    assert not (tmp_path / "out").exists()


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "more"

    with pytest.raises(ModelError, match="_extra_state is a str"):
        save_model(tmp_path / "odd", Odd(1, 1))
    assert not list(tmp_path.iterdir())
