"""Settings of an ensemble: read as written, refused with the field's path."""

from __future__ import annotations

from pathlib import Path

import pytest

from decent import config, share
from decent.errors import ConfigError
from decent.experts.settings import Settings, load


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    settings = load(None, ["router.options.width=48", "partition.balance=inf", "data.latent=none"])
    assert settings.router.options == {"width": 48}
    (tmp_path / "settings.toml").write_text(settings.to_toml())
    assert load(tmp_path / "settings.toml") == settings
    assert load() == Settings()


@pytest.mark.parametrize("path", sorted(share.folder("launch/experts").glob("*.toml")), ids=str)
def test_what_comes_with_decent_can_be_used(path: Path) -> None:
    assert load(path.stem) == load(path)


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"digts\.toml.*digits\.toml"):
        load("digts")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.sorce=x", r"unknown key data\.sorce.*Did you mean source"),
        ("expert.learning_rate=1", r"unknown key expert\.learning_rate"),
        ("expert.balanced=true", r"unknown key expert\.balanced"),
        ("steps=3", "unknown key steps"),
        ("partition.method=magic", "partition.method"),
        ("partition.experts=0", r"partition\.experts = 0: expected 1 or more"),
        ("partition.fine=7", r"partition\.fine = 7: expected at least partition\.experts, 8"),
        ("partition.balance=-0.1", r"partition\.balance = -0.1"),
        ("partition.balance=nan", r"partition\.balance = nan"),
        ("data.validation=1.0", r"data\.validation = 1\.0: expected 0 ≤ validation < 1"),
        ("router.lr=0", r"router\.lr = 0\.0"),
        ("expert.steps=0", r"expert\.steps = 0"),
        ("expert.ema=1.0", r"expert\.ema = 1\.0"),
        ("expert.decay=2", r"expert\.decay = 2"),
        ("sampling.steps=many", r"sampling\.steps: expected `int`, got `str`"),
    ],
)
def test_what_cannot_be_is_refused(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(None, [override])


def test_fewer_fine_clusters_than_experts_matter_only_to_features() -> None:
    assert load(None, ["partition.fine=1", "partition.method=random"]).partition.fine == 1


def test_a_folder_of_the_same_name_hides_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert load("digits").data.source == "digits"
    assert config.load("digits").task.name == "digits"
