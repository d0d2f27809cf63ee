"""What cannot be used is refused before anything starts: exit code 2, one line that says what was
given, what was expected and what to do, and no run folder. Real processes, nothing faked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.conftest import process

SPLIT = """
[[worker]]
name = "a"
[[worker]]
name = "b"
[[worker]]
name = "c"
[[edge]]
between = ["a", "b"]
"""
BAD = {
    "unknown key": (["launch", "--set", "stepps=5"], ["stepps", "steps", "Did you mean"]),
    "unknown key in a table": (
        ["launch", "digits", "--set", "runtime.prot=1"],
        ["unknown key runtime.prot", "Did you mean port?"],
    ),
    "impossible rate": (
        ["launch", "--set", "topology.rate=-1"],
        ["topology.rate = -1", "a finite number above 0"],
    ),
    "disconnected": (
        ["simulate", "split.toml"],
        ["net.toml: worker c cannot be reached from worker a", "connected", "Add an edge"],
    ),
    "unknown name": (["launch", "digts"], ["digts.toml", "digits.toml", "Give one of these"]),
    "missing file": (["launch", "no.toml"], ["no.toml: No such file", "a TOML file"]),
    "missing script": (
        ["launch", "no.py", "--lr", "1"],
        ["no.py: no such file", "a Python script", "Check the path"],
    ),
    "exchanges and no merge": (
        ["launch", "--set", "merge=apart"],
        ["merge 'apart'", "the schedule 'never'", 'merge = "mean"'],
    ),
    "nothing to simulate": (
        ["simulate", "--set", "merge=apart", "--set", "schedule=never"],
        ["neither exchange nor merge", "decent launch"],
    ),
    "nothing to compare with": (
        ["launch", "--set", "merge=apart", "--set", "schedule=never", "--compare"],
        ["--compare of workers kept apart"],
    ),
    "faults between nobody": (
        ["chaos", "--set", "merge=apart", "--set", "schedule=never"],
        ["workers kept apart", "faults are between them"],
    ),
    "script to simulate": (["simulate", "no.py"], ["no.py", "decent launch"]),
    "no workers": (["launch", "-n", "0"], ["workers = 0", "1 or more"]),
    "not as many workers": (
        ["launch", "-n", "3", "--set", "topology.name=ring16"],
        ["workers = 3, but ring16 has 16", "Set workers = 16"],
    ),
    "no assignment": (["launch", "--set", "steps"], ["--set steps", "KEY=VALUE"]),
    "unknown dynamics": (["launch", "--set", "dynamics.name=x"], ["x", "a2cid2"]),
    "unknown task": (
        ["simulate", "--set", "task.name=digit"],
        ["'digit'", "Did you mean 'digits'"],
    ),
    "folder in use": (["launch", "-o", "used"], ["used: the folder is not empty", "another -o"]),
    "folder is a file": (["launch", "-o", "net.toml"], ["net.toml: it is a file", "another -o"]),
    "unknown topology": (["topology", "show", "rnig"], ["'rnig'", "wan8", "Did you mean ring?"]),
    "no topology file": (["topology", "show", "a.toml"], ["a.toml: No such file", "Check"]),
    "odd hypercube": (["topology", "show", "hypercube", "-n", "6"], ["6", "4 or 8"]),
    "rate of a topology": (["topology", "show", "ring", "--rate", "0"], ["rate = 0.0", "above 0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_in_one_line(case: str, here: Path) -> None:
    line, words = BAD[case]
    Path("net.toml").write_text(SPLIT)
    Path("split.toml").write_text('[topology]\nfile = "net.toml"\n')
    Path("used").mkdir()
    Path("used/model").write_text("precious")
    done = process(*line)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("decent: error: ")
    assert len(done.stderr.splitlines()) == 1
    assert [word for word in words if word not in done.stderr] == []
    assert sorted(path.name for path in here.rglob("*")) == [
        "model",
        "net.toml",
        "split.toml",
        "used",
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["launch", "digits", "--lr", "1"], "No such option '--lr'"),
        (["launch", "digits", "more"], "unexpected more"),
        (["launch", "--compare", "train.py"], "--compare needs a task"),
        (["launch", "--seed", "-1"], "x>=0"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_usage(line: list[str], words: str, here: Path) -> None:
    Path("train.py").write_text("")
    done = process(*line)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
