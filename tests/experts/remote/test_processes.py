"""`decent serve` as it is run: experts of a folder in three processes, one of them killed."""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli.conftest import decent
from torch import Tensor

from decent import keys
from decent.errors import ConfigError, ExpertLost, RuntimeFault
from decent.experts import networks, store
from decent.experts.ensemble import Ensemble
from decent.experts.prediction import AsVelocity, Model
from decent.experts.remote import connect, sample_migrating
from decent.experts.remote.hosts import Experts
from decent.experts.sampling import sample
from decent.experts.store import Record
from decent.transport.curve import new_keys
from experts.remote.islands import Process, hosts

K, SHAPE, N, STEPS = 3, (4,), 24, 12
NOISE = torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(N) % 4 - 1
PI = (0.5, 0.3, 0.2)


def router(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
    """π at t = 1; ever surer towards t = 0."""
    return torch.tensor(PI).log() + 6 * (1 - t)[:, None] * x[:, :K]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experts with random weights."""
    place = tmp_path_factory.mktemp("ensemble")
    generator = torch.Generator().manual_seed(0)
    for k in range(K):
        module = networks.build("mlp", SHAPE, classes=3, width=8, depth=1)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.3, generator=generator)
        record = Record(network="mlp", shape=SHAPE, classes=3, options={"width": 8, "depth": 1})
        store.save(place / store.expert(k), module, record)
    return place


@pytest.fixture
def local(folder: Path) -> list[Model]:
    loaded = [store.load(folder / store.expert(k)) for k in range(K)]
    return [AsVelocity(module, record.prediction) for module, record in loaded]


class Islands:
    """One process for each expert, and the experts behind them."""

    def __init__(self, folder: Path, file: Path) -> None:
        key = keys.write(new_keys(), str(folder / "island"))[0]
        self.processes = [Process(folder, "--expert", str(k), "--key", key) for k in range(K)]
        records = {store.expert(k): store.record(folder / store.expert(k)) for k in range(K)}
        self.digests = [records[store.expert(k)].digest for k in range(K)]
        tables = [
            {"number": k, "address": each.address(), "key": keys.read(key).public, "digest": ""}
            for k, each in enumerate(self.processes)
        ]
        self.experts = connect(hosts(file, *tables), K, records)

    def end(self) -> None:
        self.experts.close()
        for each in self.processes:
            each.end()


@pytest.fixture(scope="module")
def islands(folder: Path) -> Iterator[Islands]:
    started = Islands(folder, folder / "hosts.toml")
    yield started
    started.end()


def drawn(experts: list[Model] | Experts, strategy: str, guidance: float = 1.0) -> Tensor:
    model = Ensemble(experts, router, PI, strategy)
    condition = LABELS if guidance != 1 else None
    found = sample(model, NOISE, STEPS, condition=condition, guidance=guidance)
    assert found.metadata["lost"] == {}
    return found.x


def test_remote_samples_are_the_local_ones_to_rounding(
    islands: Islands, local: list[Model]
) -> None:
    for strategy, guidance in (("full", 1.0), ("nucleus:0.9", 2.0), ("top_k:1", 1.0)):
        there = drawn(islands.experts, strategy, guidance)
        torch.testing.assert_close(there, drawn(local, strategy, guidance), rtol=1e-4, atol=1e-5)
    own = drawn(local, "top_k:1")
    stepwise = sample_migrating(router, islands.experts, NOISE, STEPS)
    torch.testing.assert_close(stepwise.x, own, rtol=1e-4, atol=1e-5)
    guided = sample_migrating(router, islands.experts, NOISE, STEPS, condition=LABELS, guidance=2)
    torch.testing.assert_close(guided.x, drawn(local, "top_k:1", 2), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="guidance = inf: expected a finite scale"):
        sample_migrating(router, local, NOISE, STEPS, condition=LABELS, guidance=math.inf)
    longer = sample_migrating(router, islands.experts, NOISE, STEPS, every=5, condition=LABELS)
    here = sample_migrating(router, local, NOISE, STEPS, every=5, condition=LABELS)
    torch.testing.assert_close(longer.x, here.x, rtol=1e-4, atol=1e-5)
    assert longer.metadata == here.metadata
    assert 0 < longer.metadata["moves"] < stepwise.metadata["moves"] + N


def test_one_killed_in_the_middle_is_told_and_the_run_finishes(islands: Islands) -> None:
    """And the others end in good order when they are asked to."""

    def on_step(step: int, _: int) -> None:
        if step == STEPS // 2:
            islands.processes[1].end()

    model = Ensemble(islands.experts, router, PI, "nucleus:0.9")
    found = sample(model, NOISE, STEPS, on_step=on_step)
    assert list(found.metadata["lost"]) == ["1"]
    assert found.metadata["lost"]["1"].startswith("at t = 0.500: tcp://")
    assert found.x.isfinite().all()
    assert 0 < len(found.metadata["restarted"]) < N
    for k in (0, 2):
        island = islands.processes[k]
        assert island.end(signal.SIGINT) == 130
        assert f"expert {k}: digest {islands.digests[k]}" in island.said
        assert "public key: " in island.said
        assert "rows" in island.said.partition("ended: ")[2]
        assert "Traceback" not in island.said
    with pytest.raises(RuntimeFault, match="Lost: expert 1"):
        sample(model, NOISE, STEPS)


def test_travellers_of_a_lost_island_start_again(local: list[Model]) -> None:
    def lost(x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        raise ExpertLost("gone")

    before = sample_migrating(router, local, NOISE, STEPS, every=3)
    after = sample_migrating(router, [lost, *local[1:]], NOISE, STEPS, every=3)
    assert list(after.metadata["lost"]) == ["0"]
    assert after.x.isfinite().all()
    assert len(after.metadata["restarted"]) == N  # at t = 1 all go to the largest cluster
    assert not torch.equal(after.x, before.x)
    with pytest.raises(RuntimeFault, match="no expert is left"):
        sample_migrating(router, [lost] * K, NOISE, STEPS)


BAD = {
    "taken": (["--expert", "0"], ["Address already in use", "nothing else listens", "Free"]),
    "no expert": (["--expert", "7"], ["expert_7"]),
    "strangers": (["--expert", "0", "--listen", "tcp://0.0.0.0:*"], ["--allow", "decent keygen"]),
    "no key": (["--expert", "0", "--allow", "abc"], ["--allow abc", "40 characters"]),
    "both": (["--expert", "0", "--insecure", "--key", "k"], ["--insecure with --key"]),
    "nonsense": (["--expert", "0", "--listen", "tcp://127.0.0.1"], ["--listen tcp://127.0.0.1"]),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_served_is_one_clear_error(folder: Path, case: str) -> None:
    arguments, parts = BAD[case]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        if case == "taken":
            arguments = [*arguments, "--listen", f"tcp://127.0.0.1:{taken.getsockname()[1]}"]
        done = decent("serve", folder, *arguments)
    assert done.exit_code == 2, done.output
    assert len(done.stderr.splitlines()) == 1
    for part in parts:
        assert part in done.stderr
