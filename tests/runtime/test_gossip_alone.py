"""`Gossip` in a script that nobody launched: alone, or in a process group of torch.distributed."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

import decent
from decent.errors import ConfigError, ModelError
from decent.folder import read_json
from decent.learning.checkpoint import load_state
from decent.runtime.world import World
from decent.topology import family

SCRIPT = """
import sys
import torch
import decent

torch.manual_seed(0)
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.Adam(model.parameters())
gossip = decent.Gossip(model, optimizer)
for _ in range(20):
    model(torch.ones(4, 3)).square().mean().backward()
    optimizer.step()
    gossip.step(loss=1.0)
gossip.log(accuracy=0.5)
print(__name__, sys.argv[1:], gossip.merge(), gossip.mean(torch.ones(2).numpy()).tolist())
"""


def small() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Linear(3, 2)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_a_script_and_its_run_agree_on_who_is_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'apart' in the script, 'mean' in the run"):
        decent.Gossip(*small(), schedule="never", merge="apart", world=World(folder=tmp_path))
    with decent.Gossip(*small(), schedule="never", merge="apart") as gossip:
        assert gossip.merge() == [0]
        with pytest.raises(ModelError, match="kept apart"):
            gossip.mean(np.ones(2))


def test_alone_everything_works_and_nothing_happens() -> None:
    model, optimizer = small()
    where = [parameter.data_ptr() for parameter in model.parameters()]
    before = [parameter.clone() for parameter in model.parameters()]
    with decent.Gossip(model, optimizer, steps=5, schedule="never", dynamics="gossip") as gossip:
        for _ in range(5):
            gossip.step(loss=1.0)
        gossip.log(accuracy=0.5)
        assert gossip.merge() == [0]
        assert gossip.mean(np.arange(3.0)).tolist() == [0, 1, 2]
    assert gossip.waits_s == []
    assert [parameter.data_ptr() for parameter in model.parameters()] == where  # not even moved
    assert all(map(torch.equal, before, model.parameters()))
    assert not optimizer._optimizer_step_pre_hooks  # nor is the optimizer slowed
    assert gossip.close() == {}


def test_alone_in_a_folder_leaves_what_a_run_leaves(tmp_path: Path) -> None:
    model, optimizer = small()
    with decent.Gossip(
        model, optimizer, topology=family("ring", 1), world=World(folder=tmp_path)
    ) as gossip:
        gossip.step(loss=2.0)
        gossip.log(accuracy=0.5)
        gossip.merge()
        gossip.log(accuracy=0.75)
    result = read_json(tmp_path / "workers/0/result.json")
    assert (result["steps"], result["loss"], result["merged_among"]) == (1, 2.0, [0])
    assert result["metrics"] == {"accuracy": 0.5}
    assert result["merged"] == {"accuracy": 0.75}
    assert torch.equal(load_state(tmp_path / "merged.safetensors")["weight"], model.weight)


def test_what_cannot_be_is_said_in_words() -> None:
    model, optimizer = small()
    with pytest.raises(ConfigError, match=r"decent launch -n 4"):
        decent.Gossip(model, optimizer, topology=family("ring", 4))
    gossip = decent.Gossip(model, optimizer)
    with pytest.raises(ModelError, match="before merge"):
        gossip.mean(np.ones(1))
    gossip.merge()
    with pytest.raises(ModelError, match="a second time"):
        gossip.merge()


def test_a_script_runs_with_plain_python(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, "--a", "b"], cwd=tmp_path, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "__main__ ['--a', 'b'] [0] [1.0, 1.0]\n"
    assert list(tmp_path.iterdir()) == [script]


def member(rank: int, store: str, said: Connection) -> None:
    """One of two processes; parameters 1 and 2, statistics 0 and 10, weighed by 1 and 3."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0 + rank)
        model[1].running_mean.fill_(10.0 * rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gossip = decent.Gossip(model, optimizer, merge="weighted")
    gossip.step()
    among = gossip.merge(samples=[1, 3][rank])
    values = {v for p in model.parameters() for v in p.flatten().tolist()}
    mean = gossip.mean(np.array([float(rank)]), 1.0)
    said.send((among, values, model[1].running_mean.item(), mean.tolist()))
    distributed.destroy_process_group()


def test_in_a_process_group_the_merge_is_its_weighted_mean(tmp_path: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["decent.runtime.warm"])
    ends = [context.Pipe() for _ in range(2)]
    store = str(tmp_path / "store")
    pair = [context.Process(target=member, args=(r, store, ends[r][1])) for r in (0, 1)]
    try:
        for each in pair:
            each.start()
        for ours, _ in ends:
            assert ours.poll(60)
            assert ours.recv() == ([0, 1], {1.75}, 7.5, [0.5])
    finally:
        for each in pair:
            each.kill()
            each.join()
