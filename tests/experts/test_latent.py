"""The latent: an isometry up to one scale, unit mean square, the same again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from decent.errors import ConfigError, ModelError, TaskError
from decent.experts import files, latent, sources
from decent.experts.latent import Latent
from decent.experts.sources import Data

DIGITS = sources.load("digits")
ALL = DIGITS.rows(slice(None))


@pytest.mark.parametrize("text", ["none", "pca:1", "pca:20", "pca:64"])
def test_unit_mean_square_and_the_variance_kept(text: str) -> None:
    made = latent.latent(text, DIGITS)
    z = made.encode(ALL)
    assert z.shape[1:] == made.shape
    assert float(z.double().square().mean()) == pytest.approx(1, rel=1e-5)
    lost = (made.decode(z) - ALL).double().square().sum()
    total = (ALL - ALL.mean(0)).double().square().sum()
    assert float(1 - lost / total) == pytest.approx(made.explained, abs=1e-5)
    torch.testing.assert_close(made.encode(made.decode(z)), z, rtol=1e-4, atol=1e-5)


def test_the_components_are_those_of_an_oracle() -> None:
    made = latent.latent("pca:10", DIGITS)
    oracle = PCA(10, svd_solver="full").fit(ALL.flatten(1).double().numpy())
    products = np.abs(np.sum(oracle.components_ * made.basis.double().numpy().T, 1))
    np.testing.assert_allclose(products, 1, atol=1e-5)
    assert made.explained == pytest.approx(oracle.explained_variance_ratio_.sum(), abs=1e-6)


def test_randomised_components_are_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = latent.latent("pca:8", DIGITS)
    monkeypatch.setattr(latent, "EXACT", 10)
    torch.testing.assert_close(latent.latent("pca:8", DIGITS).basis, exact.basis, rtol=0, atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.floats(0.01, 100), st.integers(0, 2**31))
def test_scale_and_sign_of_the_data_do_not_matter(size: int, factor: float, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal((40, 5))) * torch.arange(1, 6)
    one, other = latent.latent(f"pca:{size}", x), latent.latent(f"pca:{size}", x * factor)
    torch.testing.assert_close(
        other.encode((x * factor).float()), one.encode(x.float()), rtol=1e-3, atol=1e-4
    )
    largest = one.basis.abs().argmax(0)
    assert (one.basis[largest, torch.arange(size)] > 0).all()


def test_mapped_data_gives_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", ALL.numpy())
    mapped = latent.latent("pca:5", sources.load(str(tmp_path / "x.npy")))
    assert torch.equal(mapped.basis, latent.latent("pca:5", DIGITS).basis)


@pytest.mark.parametrize("text", ["none", "pca:6"])
def test_saved_and_loaded(tmp_path: Path, text: str) -> None:
    made = latent.latent(text, DIGITS)
    made.save(tmp_path)
    again = latent.load(tmp_path)
    assert isinstance(again, Latent)
    assert (again.kind, again.shape, again.explained) == (text, made.shape, made.explained)
    assert torch.equal(again.encode(ALL), made.encode(ALL))
    path = tmp_path / files.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ModelError, match="digest"):
        latent.load(tmp_path)


@pytest.mark.parametrize("text", ["pca", "pca:0", "pca:-3", "vae", "pca:1.5", ""])
def test_unknown_names_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="pca:64"):
        latent.latent(text, DIGITS)


def test_what_cannot_be_fitted_or_encoded_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 64 components"):
        latent.latent("pca:65", DIGITS)
    with pytest.raises(ConfigError, match="at most 3 components"):
        latent.latent("pca:4", ALL[:3])
    for text in ("pca:2", "none"):
        with pytest.raises(TaskError, match="the same"):
            latent.latent(text, torch.zeros(9, 5))
    with pytest.raises(TaskError, match="NaN"):
        latent.latent("pca:2", Data(torch.full((9, 5), torch.nan)))
    made = latent.latent("pca:2", DIGITS)
    with pytest.raises(ModelError, match="samples of shape"):
        made.encode(torch.zeros(3, 8, 8))
    with pytest.raises(ModelError, match="latents of shape"):
        made.decode(torch.zeros(3, 3))


def test_no_folder_no_latent(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        latent.load(tmp_path)
