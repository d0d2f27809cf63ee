"""Files where they belong: each island has its own expert's, the caller the router's and no tensors
of any expert."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli.conftest import decent
from safetensors import safe_open
from torch import Tensor

from decent.experts import files, networks, partition, settings, store
from experts.remote.islands import Process, hosts

K, CLASSES = 3, 10
OPTIONS = {"width": 8, "depth": 1}
GUIDED = ["--label", "all", "--guidance", 2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything in one place: three experts of digits, and a router, of random weights."""
    folder = tmp_path_factory.mktemp("whole") / "digits"
    partition.partition(
        settings.load(None, [
            "data.source=digits", "data.latent=pca:6", f"partition.experts={K}",
            "partition.fine=12", "partition.features=latent", "sampling.steps=5",
        ]),
        folder,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for name, outputs in [*((store.expert(k), None) for k in range(K)), (store.ROUTER, K)]:
        module = networks.build("mlp", (6,), CLASSES, outputs, **OPTIONS)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.normal_(0, 0.3, generator=generator)
        record = store.Record(
            network="mlp", shape=(6,), classes=CLASSES, outputs=outputs, options=OPTIONS
        )
        store.save(folder / name, module, record)
    return folder


@pytest.fixture(scope="module")
def addresses(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Of islands that hold the folder of one expert and nothing else."""
    processes = []
    for k in range(K):
        home = tmp_path_factory.mktemp(f"island-{k}")
        shutil.copytree(whole / store.expert(k), home / store.expert(k))
        processes.append(Process(home, "--expert", str(k)))
    yield [each.address() for each in processes]
    for each in processes:
        each.end()


@pytest.fixture
def caller(whole: Path, tmp_path: Path) -> Path:
    """The folder without the experts."""
    ignored = shutil.ignore_patterns("expert_*")
    return Path(shutil.copytree(whole, tmp_path / "caller", ignore=ignored))


def file(folder: Path, addresses: list[str], digests: list[str]) -> Path:
    tables = [
        {"number": k, "address": address, "digest": digests[k]}
        for k, address in enumerate(addresses)
    ]
    return hosts(folder.parent / "hosts.toml", *tables)


def digests(whole: Path) -> list[str]:
    return [store.record(whole / store.expert(k)).digest for k in range(K)]


def drawn(folder: Path, *arguments: str | int | Path) -> Tensor:
    out = folder.parent / "out.safetensors"
    done = decent("sample", folder, "-n", 12, *arguments, "-o", out)
    assert done.exit_code == 0, done.output
    assert json.loads(out.with_suffix(".json").read_text())["lost"] == {}
    with safe_open(out, "pt") as tensors:
        return tensors.get_tensor("x")


def test_the_router_is_enough(whole: Path, caller: Path, addresses: list[str]) -> None:
    there = ["--experts", file(caller, addresses, digests(whole))]
    assert not list(caller.glob("expert_*"))
    for arguments in (GUIDED, [*GUIDED, "--migrate", 2], ["--strategy", "ancestral"]):
        here = drawn(whole, *arguments)
        torch.testing.assert_close(drawn(caller, *arguments, *there), here, rtol=1e-4, atol=1e-5)


def test_records_without_tensors_pin_the_digests(
    whole: Path, caller: Path, addresses: list[str]
) -> None:
    unpinned = file(caller, addresses, [""] * K)
    refused = decent("sample", caller, "--experts", unpinned)
    assert refused.exit_code == 2
    assert "expert 0 has 0 digests" in refused.stderr
    for k in range(K):
        (caller / store.expert(k)).mkdir()
        shutil.copy(whole / store.expert(k) / files.CONFIG, caller / store.expert(k))
    there = drawn(caller, "--experts", unpinned)
    torch.testing.assert_close(there, drawn(whole), rtol=1e-4, atol=1e-5)
    both = file(caller, addresses, ["another", *digests(whole)[1:]])
    refused = decent("sample", caller, "--experts", both)
    assert refused.exit_code == 2
    assert "expert 0 has 2 digests" in refused.stderr


def test_other_weights_are_refused_in_words(
    whole: Path, caller: Path, addresses: list[str]
) -> None:
    wrong = file(caller, addresses, [*digests(whole)[:-1], "another"])
    refused = decent("sample", caller, "--experts", wrong)
    assert refused.exit_code == 2
    said = f"serves expert 2 with the digest {digests(whole)[2]}, expected another"
    assert said in refused.stderr


def test_without_islands_the_experts_are_missed(caller: Path) -> None:
    refused = decent("sample", caller)
    assert refused.exit_code == 2
    assert "has no expert_0, expert_1, expert_2" in refused.stderr
