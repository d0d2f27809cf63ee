"""`decent launch script.py`: a user's own training loop, once in each worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from decent.errors import ConfigError, ModelError
from launcher.jobs import SCRIPT, Job, config

GOOD = (
    SCRIPT.replace(
        "gossip = decent.Gossip(model, optimizer)",
        '''
import helper                     # a module beside the script

class Late:
    """A schedule of the script's own: nothing before step 10."""

    def __init__(self, first):
        self.first = first

    def contacts(self, view: decent.View):
        time = self.first
        while True:
            yield time, helper.choose(view)
            time += 1.0

gossip = decent.Gossip(model, optimizer, schedule=Late(10.0), dynamics="gossip")
''',
    )
    + """
print(__name__, sys.argv[1:], "worker", me, "of", gossip.topology.n)
for step in range(40):
    optimizer.zero_grad()
    (model(torch.ones(8, 4)) - me).square().mean().backward()
    optimizer.step()
    gossip.step(loss=float(step))
    time.sleep(0.01)
print("merged", gossip.merge(samples=10))
if me == 0:
    gossip.log(answer=42.0)
"""
)  # never closed: a script need not
FAILING = (
    SCRIPT
    + """
for step in range(40):
    optimizer.step()
    gossip.step()
    time.sleep(0.01)
    if me == 1 and step == 20:
        print("about to fail")
        raise ValueError("no such word")
    if me == 3 and step == 10:
        sys.exit("given up")
print("merged", gossip.merge())
"""
)


def test_a_script_runs_once_in_each_worker(job: Job, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def choose(view):\n    return view.draw_peer()\n")
    arguments = ["--lr", "1", "x y"]
    outcome = job.run(config(3, topology__rate=0.2), GOOD, arguments)
    assert outcome["faults"] == []
    assert outcome["merged_among"] == [0, 1, 2]
    assert outcome["merged"] == {"answer": 42.0}
    for me, result in enumerate(outcome["results"]):
        assert job.said(me)[0] == f"__main__ ['--lr', '1', 'x y'] worker {me} of 3"
        assert job.said(me)[-1] == "merged [0, 1, 2]"
        assert (result["steps"], result["loss"]) == (40, 39.0)
        assert result["stats"]["started"] + sum(result["stats"]["skipped"].values()) >= 31
        assert result["stats"]["completed"] > 0
        asked = [event["t"] for event in job.events(me) if event["event"] in ("request", "skip")]
        assert 10.0 <= asked[0] < 12.0
    assert (job.folder / "run/merged.safetensors").is_file()


def test_an_error_in_one_worker_stops_nobody(job: Job) -> None:
    outcome = job.run(config(4), FAILING)
    faults = {fault["worker"]: fault["what"] for fault in outcome["faults"]}
    assert sorted(faults) == [1, 3]
    assert faults[1].startswith("ended with exit code 1: ValueError: no such word")
    assert "given up" in faults[3]
    assert str(job.folder / "run/workers/1/log.txt") in faults[1]
    assert "about to fail" in job.log(1)
    assert "Traceback" in job.log(1)
    assert outcome["merged_among"] == [0, 2]
    assert job.said(0)[-1] == job.said(2)[-1] == "merged [0, 2]"


def test_what_gossip_refuses_is_refused_for_all(job: Job) -> None:
    with pytest.raises(ModelError, match="without learnable parameters"):
        job.run(config(2), SCRIPT.replace("torch.nn.Linear(4, 1)", "Nothing()").replace(
            "model =",
            "class Nothing(torch.nn.Module):\n"
            "    def parameters(self): return [torch.zeros(1, requires_grad=True)]\n"
            "model =",
        ))  # fmt: skip
    assert all(status["state"] != "training" for status in job.seen)


def test_replicas_that_differ_are_refused_for_all(job: Job) -> None:
    """One worker has another model: nothing is trained, the error names both sizes."""
    import_me = "from decent.runtime.world import current\nmodel ="
    code = SCRIPT.replace("model =", import_me).replace("(4, 1)", "(4 + current().me // 2, 1)")
    with pytest.raises(ConfigError, match=r"parameters in the model: 6 at worker 2, 5 at worker"):
        job.run(config(3), code)


def test_input_errors_in_the_middle_stop_one(job: Job) -> None:
    code = SCRIPT + "gossip.step()\nif me == 1: gossip.mean(None)\nprint(gossip.merge())\n"
    outcome = job.run(config(3), code)
    [fault] = outcome["faults"]
    assert fault["worker"] == 1
    assert "before merge()" in fault["what"]
    assert outcome["merged_among"] == [0, 2]


def test_a_script_without_gossip_is_just_run(job: Job) -> None:
    outcome = job.run(config(2), "import os\nprint(sorted(os.environ)[:0], 'done')\n")
    assert outcome["faults"] == []
    assert job.said(1) == ["[] done"]
    assert outcome["merged_among"] == []
