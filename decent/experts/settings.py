"""The settings of an ensemble: one TOML file that every `decent experts` command reads.

    seed
    [data] [partition]      what is learned, and how it is divided among K experts
    [expert] [router]       what is trained, and how long
    [sampling]              how the ensemble is used where the command line does not say

All is checked before anything starts; an error names field, value, remedy. `partition` writes the
settings as resolved to `settings.toml` of the ensemble's folder; later commands read them there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from decent import toml
from decent.config import Strict, at_least, locate, more_than_0
from decent.errors import ConfigError

FILE = "settings.toml"


class DataTable(Strict, frozen=True):
    """The data, and the space that the models live in."""

    source: str = "fashion-mnist"
    """a name, a .npy or .npz file, or package.module:function; see `sources`"""
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """of the source, such as path"""
    latent: str = "pca:64"
    """none, or pca:SIZE for principal components; one for all experts"""
    conditional: bool = False
    """whether the models are given the labels"""
    validation: float = 0.0
    """share of the samples held out of all training; near-duplicates are not parted"""


class PartitionTable(Strict, frozen=True):
    """Which sample is whose."""

    experts: int = 8
    method: Literal["features", "labels", "random"] = "features"
    features: str = "pca:64"
    """what k-means sees: pca:SIZE, latent, … or package.module:function; see `features`"""
    fine: int = 128
    """centroids of the first k-means, which the second gathers into experts"""
    balance: float = 0.25
    """an expert gets n/K of n samples, but for a factor of 1 + balance; inf: no such bound"""
    duplicates: float = 0.05
    """features nearer than this share of their spread are near-duplicates"""


class TrainingTable(Strict, frozen=True):
    """How one network is trained. Expert and router differ in defaults."""

    network: str = "mlp"
    options: dict[str, Any] = msgspec.field(default_factory=dict)
    """of the network"""
    batch_size: int = 64
    steps: int = 8000
    lr: float = 1e-3
    warmup: int = 100
    """steps over which the learning rate rises from 0"""
    decay: float = 0.2
    """share of the steps, the last ones, over which it falls to 0"""
    weight_decay: float = 0.0
    clip: float = 1.0
    """largest norm of a gradient; inf: no limit"""
    ema: float = 0.999
    """of the weights; 0: the weights themselves are kept"""
    times: str = "logit_normal"
    """uniform, logit_normal or logit_normal:MEAN:SPREAD"""
    drop_condition: float = 0.1
    """share of the samples trained on without their label; only with data.conditional"""
    start: str = ""
    """folder of a checkpoint to start from; empty: from weights of the seed"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of matrix products; weights, answers and the loss are float32 in any case"""


class RouterTable(TrainingTable, frozen=True):
    """How the router is trained."""

    batch_size: int = 256
    steps: int = 4000
    lr: float = 2e-3
    times: str = "uniform"
    balanced: bool = False
    """batches have as many samples of each cluster; log π_k is then added to the logits"""


class SamplingTable(Strict, frozen=True):
    """How samples are drawn."""

    strategy: str = "nucleus:0.9"
    steps: int = 40
    method: Literal["euler", "heun", "adaptive"] = "euler"
    guidance: float = 1.0


class Settings(Strict, frozen=True):
    """All of them."""

    seed: int = 0
    data: DataTable = DataTable()
    partition: PartitionTable = PartitionTable()
    expert: TrainingTable = TrainingTable()
    router: RouterTable = RouterTable()
    sampling: SamplingTable = SamplingTable()

    def __post_init__(self) -> None:
        at_least("seed", self.seed, 0)
        _below_1("data.validation", self.data.validation)
        _check_partition(self.partition)
        _check_training("expert", self.expert)
        _check_training("router", self.router)
        at_least("sampling.steps", self.sampling.steps, 1)

    def to_toml(self) -> str:
        """As resolved: enough to do it again."""
        return toml.dumps(msgspec.to_builtins(self))


def load(source: str | Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Settings from a TOML file, a name that comes with decent (`launch/experts/`), or the
    defaults; then `KEY=VALUE` overrides, keys dotted. Raises ConfigError."""
    data = toml.read(locate(source, "launch/experts")) if source is not None else {}
    for override in overrides:
        toml.override(data, override)
    return toml.convert(data, Settings)


def _check_partition(table: PartitionTable) -> None:
    at_least("partition.experts", table.experts, 1)
    if table.method == "features" and table.fine < table.experts:
        raise ConfigError(
            f"partition.fine = {table.fine}",
            f"at least partition.experts, {table.experts}",
            "take some sixteen fine centroids to an expert",
        )
    if not table.balance >= 0:
        raise ConfigError(f"partition.balance = {table.balance}", "0 or more, or inf")
    _below_1("partition.duplicates", table.duplicates)


def _check_training(name: str, table: TrainingTable) -> None:
    for field in ("batch_size", "steps"):
        at_least(f"{name}.{field}", getattr(table, field), 1)
    at_least(f"{name}.warmup", table.warmup, 0)
    more_than_0(f"{name}.lr", table.lr)
    for field in ("weight_decay", "clip"):
        if not getattr(table, field) >= 0:
            raise ConfigError(f"{name}.{field} = {getattr(table, field)}", "0 or more")
    for field in ("ema", "drop_condition"):
        _below_1(f"{name}.{field}", getattr(table, field))
    if not 0 <= table.decay <= 1:
        raise ConfigError(f"{name}.decay = {table.decay}", "0 ≤ decay ≤ 1")


def _below_1(field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ConfigError(f"{field} = {value}", f"0 ≤ {field.rpartition('.')[2]} < 1")
