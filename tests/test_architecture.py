"""The house keeps its order: imports run one way, heavy libraries stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "decent"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS = [
    {"errors"},
    {"folder", "keys", "plugins", "share", "toml", "units"},
    {"topology"},
    {"schedule"},
    {"dynamics", "merge"},
    {"worker", "config"},
    {"transport", "learning"},
    {"runtime", "simulation"},
    {"experts"},
    {"observe", "launcher"},
    {"bench", "chaos", "reproduce"},
    {"cli"},
]
"""Lowest first: each may import those below it, not those beside it."""
ANYTHING = {"testing", ""}  # the public tools of tests; the package itself, lazily
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

TORCH = {"learning", "runtime", "simulation", "experts", "bench", "reproduce"}
BELOW_TORCH = ["topology", "schedule", "dynamics", "merge", "worker", "transport", "config"]


class Import(NamedTuple):
    """`file` imports `module`, at `line`."""

    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def room(module: str) -> str:
    """The folder or base module that a module of decent belongs to; '' for decent itself."""
    return module.split(".")[1] if "." in module else ""


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[Import]:
    """Every import of `file`, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(file.read_text(), file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            for alias in node.names:
                yield Import(file, node.lineno, _submodule(node.module or "", alias.name))


def _submodule(module: str, name: str) -> str:
    """`module.name` if that is a module of decent, else `module`."""
    path = ROOT.joinpath(*module.split("."), name)
    known = path.is_dir() or path.with_suffix(".py").is_file()
    return f"{module}.{name}" if module.startswith("decent") and known else module


ALL = [each for file in FILES for each in imports(file)]


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {room(module_of(file)) for file in FILES}
    assert rooms <= RANK.keys() | ANYTHING


def test_imports_run_one_way() -> None:
    wrong = []
    for each in ALL:
        if each.module.split(".")[0] != "decent":
            continue
        here, there = room(module_of(each.file)), room(each.module)
        if here in ANYTHING or there in ("", here):
            continue
        if there not in RANK or RANK[there] >= RANK[here]:
            wrong.append(str(each))
    assert wrong == []


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("zmq", {"transport"}),
        ("torch", TORCH),
        ("sklearn", {"learning", "experts"}),
        ("click", {"cli"}),
        ("rich", {"cli", "observe"}),
        ("networkx", {"topology"}),
        ("scipy", {"topology"}),
        ("cvxpy", {"topology"}),
        ("matplotlib", {"reproduce"}),
        ("xxhash", {"worker", "experts", "reproduce"}),
        ("pickle", set()),
        ("cloudpickle", {"runtime"}),
    ],
)
def test_libraries_stay_in_their_rooms(library: str, rooms: set[str]) -> None:
    users = [each for each in ALL if each.module.split(".")[0] == library]
    assert [str(each) for each in users if room(module_of(each.file)) not in rooms] == []


def _loaded_after(statement: str) -> set[str]:
    """Names of the libraries that a fresh interpreter has loaded after `statement`."""
    report = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{report}"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


def test_import_decent_is_light() -> None:
    assert not _loaded_after("import decent") & {"torch", "zmq", "numpy", "click", "rich", "xxhash"}


def test_the_communicator_starts_without_torch() -> None:
    loaded = _loaded_after("import decent.runtime.communicator")
    assert {"zmq", "numpy"} <= loaded
    assert not loaded & {"torch", "sklearn", "scipy", "networkx", "click", "rich"}


def test_the_lower_floors_need_neither_torch_nor_sockets() -> None:
    names = [name for name in BELOW_TORCH if name != "transport"]
    loaded = _loaded_after("import " + ", ".join(f"decent.{name}" for name in names))
    assert not loaded & {"torch", "zmq", "sklearn", "scipy", "networkx"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_say_what_they_are_and_are_not_long(file: Path) -> None:
    text = file.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module without a docstring"
    assert len(text.splitlines()) <= 350
