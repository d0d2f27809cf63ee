"""The one description of a run, behind the command line, TOML files and the library.

    seed, workers, steps, batch_size
    [task]  [optimizer]                  what is trained
    [topology] [schedule] [dynamics] [merge]    who, when, how, into what
    [exchange]                           what is sent of the values
    [runtime]  [simulation]              where: real processes, or virtual time

`[task]`, `[schedule]`, `[dynamics]`, `[merge]` and `[optimizer]` name a thing and give its options
beside the name. Everything is checked before anything starts; an error names field, value, remedy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from decent import dynamics as _dynamics
from decent import merge as _merge
from decent import schedule as _schedule
from decent import share, toml, units
from decent import topology as _topology
from decent.errors import ConfigError, InputError, TopologyError

NAMED = ("task", "schedule", "dynamics", "merge", "optimizer", "method")
"""Tables of the form: a name, and its options beside it."""


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Frozen, and without unknown keys."""


class Named(Strict, frozen=True):
    """Something chosen by name, with options."""

    name: str
    options: dict[str, Any] = {}


class TopologyTable(Strict, frozen=True):
    """Who talks to whom. A family (`name`) of `workers`, a shipped topology, or a `file`."""

    name: str = "ring"
    file: str | None = None
    rounds: Literal["static", "random_matching", "one_peer_exponential"] = "static"
    """with a `method`: who mixes with whom in each round"""
    rate: float | Literal["own"] = 0.04
    """models each worker sends per local step, on average; "own" keeps the file's rates"""
    seed: int = 0
    options: dict[str, float] = {}


class MergeTable(Strict, frozen=True):
    name: str = "mean"
    norm_statistics: Literal["average", "recalibrate", "local"] = "recalibrate"
    options: dict[str, Any] = {}


class ExchangeTable(Strict, frozen=True):
    """What an exchange sends of its values, and how much at a time."""

    codec: Literal["exact", "fp32", "bf16", "fp16", "int8", "topk"] = "exact"
    share: float = 0.1
    """topk: of the values of a chunk"""
    block: int = 256
    """int8: values to a scale"""
    bandwidth: str | None = None
    """of a worker's outgoing payloads, such as "20Mbit"; none: no limit"""
    max_open: int = 4
    """exchanges that a worker may have started and not completed"""


class RuntimeTable(Strict, frozen=True):
    """Real processes. Times in seconds."""

    threads: int = 1
    """torch threads of a worker"""
    transport: Literal["tcp", "ipc"] = "tcp"
    host: str = "127.0.0.1"
    """address the workers listen on; others reach them there"""
    encrypt: bool = False
    """on loopback too; off loopback traffic is encrypted in any case"""
    insecure: bool = False
    """… unless this is true, which the command line takes as --insecure and nowhere else"""
    keys: str | None = None
    """file or folder of secret keys, for the public ones of the topology; none: fresh ones"""
    port: int = 0
    """worker i listens on port + i; 0 lets the system choose"""
    chunk_kib: int | Literal["auto"] = "auto"
    shared_memory: bool = True
    """payloads to workers of the same machine go through shared memory"""
    start_s: float = 60.0
    silent_s: float = 3.0
    dead_s: float = 15.0
    ledger: bool | Literal["auto"] = "auto"
    """for `decent audit`; auto: of many chunks, local steps are measured in one of sixteen"""
    checkpoint_every: int = 0
    """local steps from one checkpoint to the next, at most; 0: none are taken"""
    restarts: int = 0
    """how often a worker that dies is started again"""


class SimulationTable(Strict, frozen=True):
    """Virtual time: what a step and a link take where the topology does not say."""

    fidelity: Literal["network", "ideal"] = "network"
    """network: the workers of a real run over modelled links; ideal: exchanges take no time, and
    thousands of workers are worked on together"""
    gradients: Literal["paced", "poisson"] = "paced"
    """poisson: at random times, as the papers have it; an ideal run then ends at time `steps`"""
    momentum: Literal["achieved", "nominal"] = "achieved"
    """network: whether momentum follows the rates achieved"""
    replicas: int = 1
    """ideal, convex tasks: independent runs at once, of seeds `seed`, `seed` + 1, …"""
    records: int = 100
    """ideal: how many points the curves have"""
    device: str = "cpu"
    """ideal: where the state is held, such as cuda"""
    step_s: float = 0.1
    step_spread: float = 0.0
    """spread of pace over workers: standard deviation of log step time"""
    step_jitter: float = 0.1
    """the same from step to step"""
    latency_s: float = 0.01
    bandwidth_mbps: float | None = None
    jitter: float = 0.0
    """spread of latency: standard deviation of its logarithm"""
    loss: float = 0.0
    """share of messages lost"""


class Config(Strict, frozen=True):
    """A whole run."""

    seed: int = 0
    workers: int | None = None
    """none: as many as the topology's file has, or 8"""
    steps: int = 1000
    batch_size: int = 16
    init: Literal["common", "own"] = "common"
    """whether all workers start from the same parameters"""
    task: Named = Named(name="digits")
    optimizer: Named | None = None
    """a class of torch.optim with its options; none: the task's own"""
    topology: TopologyTable = TopologyTable()
    schedule: Named = Named(name="poisson")
    dynamics: Named = Named(name="a2cid2")
    method: Named | None = None
    """a round-based method to simulate in place of schedule and dynamics"""
    merge: MergeTable = MergeTable()
    exchange: ExchangeTable = ExchangeTable()
    runtime: RuntimeTable = RuntimeTable()
    simulation: SimulationTable = SimulationTable()

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "workers"):
            at_least(field, getattr(self, field), 1)
        if self.topology.rate != "own":
            more_than_0("topology.rate", self.topology.rate)
        if not 0 < self.exchange.share <= 1:
            raise ConfigError(f"exchange.share = {self.exchange.share}", "0 < share ≤ 1")
        for field in ("block", "max_open"):
            at_least(f"exchange.{field}", getattr(self.exchange, field), 1)
        if self.exchange.bandwidth is not None:
            units.rate("exchange.bandwidth", self.exchange.bandwidth)
        silent = self.method is not None or self.simulation.fidelity == "ideal"
        if silent and (self.exchange.codec != "exact" or self.exchange.bandwidth is not None):
            raise ConfigError(
                f"exchange.codec = {self.exchange.codec!r}, bandwidth = {self.exchange.bandwidth}",
                '"exact" and none in ideal simulations and round-based methods: no messages there',
                'use simulation.fidelity = "network"',
            )
        least = {"threads": 1, "chunk_kib": 1, "checkpoint_every": 0, "restarts": 0}
        for field, lowest in least.items():
            at_least(f"runtime.{field}", getattr(self.runtime, field), lowest)
        for field in ("start_s", "silent_s", "dead_s"):
            more_than_0(f"runtime.{field}", getattr(self.runtime, field))
        if not 0 <= self.runtime.port <= 65_535 - (self.workers or 1):
            raise ConfigError(
                f"runtime.port = {self.runtime.port}", "a port for each worker below 65536, or 0"
            )
        if self.runtime.encrypt and self.runtime.insecure:
            raise ConfigError("runtime.encrypt and runtime.insecure", "one of the two at most")
        more_than_0("simulation.step_s", self.simulation.step_s)
        for field in ("replicas", "records"):
            at_least(f"simulation.{field}", getattr(self.simulation, field), 1)
        for field in ("step_spread", "step_jitter", "latency_s", "jitter"):
            at_least(f"simulation.{field}", getattr(self.simulation, field), 0)
        if not 0 <= self.simulation.loss < 1:
            raise ConfigError(f"simulation.loss = {self.simulation.loss}", "0 ≤ loss < 1")

    def make_topology(self) -> _topology.Topology:
        """The graph with its rates, checked against the number of workers."""
        table = self.topology
        families = _topology.families()
        if table.file is None and table.name not in families and not _shipped(table.name):
            raise TopologyError(
                f"topology.name = {table.name!r}",
                f"a family ({', '.join(families)}) or a topology that comes with decent",
                "for a graph of your own set topology.file",
            )
        if table.file is not None or table.name not in families:
            graph = _topology.load(table.file or table.name)
        else:
            graph = _topology.family(
                table.name, self.workers or 8, seed=table.seed, **table.options
            )
        if self.workers not in (None, graph.n):
            raise TopologyError(
                f"workers = {self.workers}, but {table.file or table.name} has {graph.n}",
                "as many workers as the topology has nodes",
                f"set workers = {graph.n}, or choose another topology",
            )
        if table.rate == "own" or graph.n == 1:
            return graph
        return graph.with_models_per_worker(table.rate)

    def make_schedule(self) -> _schedule.Schedule:
        return _schedule.get(self.schedule.name, **self.schedule.options)

    def make_dynamics(self) -> _dynamics.Dynamics:
        return _dynamics.get(self.dynamics.name, **self.dynamics.options)

    def make_merge(self) -> _merge.Merge:
        return _merge.get(self.merge.name, **self.merge.options)

    @property
    def apart(self) -> bool:
        """Whether workers have nothing to do with each other: no exchange, no merge."""
        return _merge.kept_apart(self.make_merge(), self.make_schedule())

    def check(self) -> None:
        """Build everything that needs neither torch nor data, and discard it: raises InputError."""
        graph, dynamics = self.make_topology(), self.make_dynamics()
        if not getattr(dynamics, "needs_curvature", False):  # else the task has to be asked
            _dynamics.system_on(dynamics, graph)
        _merge.kept_apart(self.make_merge(), self.make_schedule())

    def to_toml(self) -> str:
        """As resolved: enough to run it again."""
        return toml.dumps(_flatten(msgspec.to_builtins(self)))


def _shipped(name: str) -> bool:
    return (share.folder("topologies") / f"{name}.toml").is_file()


def load(source: str | Path | None = None, overrides: Iterable[str] = ()) -> Config:
    """A config from a TOML file, a name that comes with decent, or the defaults; then
    `KEY=VALUE` overrides, keys dotted, values as in TOML (bare words are strings)."""
    data = _read(locate(source, "launch")) if source is not None else {}
    for override in overrides:
        toml.override(data, override)
    return from_dict(data)


def from_dict(data: dict[str, Any]) -> Config:
    """A config from nested tables, as TOML gives them."""
    data = {key: _gather(key, value) for key, value in data.items()}
    return toml.convert(data, Config)


def locate(source: str | Path, folder: str) -> Path:
    """A TOML file by its path, or by its name in a `folder` that comes with decent."""
    path = Path(source)
    if path.suffix == ".toml" or path.is_file():
        return path
    try:
        return share.find(folder, f"{source}.toml")
    except InputError as error:
        raise ConfigError(error.given, error.expected, error.remedy) from None


def _read(path: Path) -> dict[str, Any]:
    data = toml.read(path)
    file = data.get("topology", {}).get("file") if isinstance(data.get("topology"), dict) else None
    if isinstance(file, str) and not Path(file).is_absolute() and (path.parent / file).exists():
        data["topology"]["file"] = str((path.parent / file).resolve())
    return data


def _gather(key: str, value: Any) -> Any:
    """Options beside a name, put into `options`; a bare name stands for a table."""
    if isinstance(value, str) and key in (*NAMED, "topology"):
        return {"name": value}
    fields = {"topology": TopologyTable, "merge": MergeTable}.get(key, Named)
    if not isinstance(value, dict) or key not in (*NAMED, "topology"):
        return value
    known = fields.__struct_fields__
    own = {k: v for k, v in value.items() if k in known and k != "options"}
    options = {k: v for k, v in value.items() if k not in known} | value.get("options", {})
    if fields is Named and "name" not in own:
        default = next(f.default for f in msgspec.structs.fields(Config) if f.name == key)
        own["name"] = default.name if isinstance(default, Named) else "SGD"
    return own | ({"options": options} if options else {})


def _flatten(data: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_gather`, without what is none."""
    flat = {}
    for key, value in data.items():
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if v is not None and k != "options"} | (
                value.get("options", {})
            )
        if value is not None:
            flat[key] = value
    return flat


def at_least(field: str, value: float | str | None, least: float) -> None:
    """Raises ConfigError for a number below `least`."""
    if not (value is None or isinstance(value, str) or value >= least):
        raise ConfigError(f"{field} = {value}", f"{least} or more")


def more_than_0(field: str, value: float) -> None:
    """Raises ConfigError for what is not positive and finite."""
    if not (value > 0 and math.isfinite(value)):
        raise ConfigError(f"{field} = {value}", "a finite number above 0")
