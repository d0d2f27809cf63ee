"""The documentation tells the truth where a machine can tell: code, commands, keys, links."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from decent.cli import main
from decent.config import Config, from_dict, load
from decent.observe import summarise
from decent.topology import families, family

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "launch", "topologies", "experiments", "experiments/*")
PAGES = sorted(
    path
    for pattern in ("*.md", *(f"{folder}/*.md" for folder in FOLDERS))
    for path in ROOT.glob(pattern)
)


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(page, text[: found.start()].count("\n") + 2, found[1], found[2])
        for found in re.finditer(r"^```(\S*)\n(.*?)^```$", text, re.M | re.S)
    ]


BLOCKS = [block for page in PAGES for block in blocks(page)]


def written_in(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)


def test_there_is_something_to_check() -> None:
    assert len(PAGES) > 12
    assert len(written_in("python")) > 8
    assert len(written_in("console")) > 10


@pytest.mark.parametrize("block", written_in("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", written_in("python"), ids=str)
def test_what_python_imports_of_decent_is_there(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("decent"):
            module = __import__(node.module or "", fromlist=["_"])
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("block", written_in("toml"), ids=str)
def test_toml_is_toml(block: Block) -> None:
    tables = tomllib.loads(block.text)
    if block.page.parent.name == "docs":
        from_dict(tables)


def _commands() -> list[tuple[str, str]]:
    lines = [
        (str(block), line.removeprefix("$ "))
        for block in written_in("console")
        for line in block.text.splitlines()
    ]
    table = re.findall(r"^\| [^`\n]*\| `((?:decent|make) [^`]*)`", _benchmarks(), re.M)
    return lines + [("docs/benchmarks.md", line) for line in table]


def _benchmarks() -> str:
    return (ROOT / "docs" / "benchmarks.md").read_text()


@pytest.mark.parametrize(
    ("place", "command"),
    [each for each in _commands() if each[1].startswith("decent ")],
)
def test_commands_parse(place: str, command: str) -> None:
    _parse(main, shlex.split(command, comments=True)[1:], None)


def _parse(command: click.Command, arguments: list[str], parent: click.Context | None) -> None:
    """What click does before it calls the command: raises UsageError for what it does not take."""
    context = command.make_context(command.name, list(arguments), parent=parent)
    if isinstance(command, click.Group):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        _, inner, left = command.resolve_command(context, rest)
        assert inner is not None
        _parse(inner, left, context)


@pytest.mark.parametrize(
    ("place", "command"),
    [each for each in _commands() if each[1].startswith("make ")],
)
def test_make_knows_its_words(place: str, command: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
    words = shlex.split(command.replace("&&", " "), comments=True)
    assert {word for word in words if word != "make"} <= set(targets)


SETTINGS = re.findall(r"--set ([\w.-]+=[^\s`)]+)", "\n".join(p.read_text() for p in PAGES))


@pytest.mark.parametrize("setting", sorted(set(SETTINGS) - {"KEY=VALUE"}))
def test_settings_are_accepted(setting: str) -> None:
    load("fashion-mnist" if "path" in setting else "digits", [setting])


def _documented(heading: str) -> dict[str, str]:
    """Key → default, from the table under that heading of the page on configuration."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", section, re.M) + _pairs(section))


def _pairs(section: str) -> list[tuple[str, str]]:
    """Rows that document two keys at once."""
    rows = re.findall(r"^\| `(\w+)`, `(\w+)` \| (\S+), (\S+) \|", section, re.M)
    return [pair for a, b, x, y in rows for pair in ((a, x), (b, y))]


def _expected(kind: type[Any], default: Any) -> dict[str, str]:
    keys = {}
    for field in msgspec.structs.fields(kind):
        value = getattr(default, field.name, None)
        if field.name == "options" or isinstance(value, msgspec.Struct):
            continue
        keys[field.name] = "none" if value is None else f"`{msgspec.json.encode(value).decode()}`"
    return keys


TABLES = [field.name for field in msgspec.structs.fields(Config) if field.name not in
          ("seed", "workers", "steps", "batch_size", "init")]  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_documented_with_its_default(table: str) -> None:
    default = getattr(Config(), table)
    kind = type(default) if default is not None else type(Config().task)
    assert _documented(f"`[{table}]`") == _expected(kind, default)


def test_every_key_of_the_run_is_documented_with_its_default() -> None:
    expected = {k: v for k, v in _expected(Config, Config()).items() if k not in TABLES}
    assert _documented("The run") == expected


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.toml")), ids=lambda p: p.stem)
def test_what_comes_with_decent_can_be_used(path: Path) -> None:
    config = load(path)
    config.check()
    assert f"[{path.name}]" in (ROOT / "launch" / "README.md").read_text()


def test_the_summary_is_documented() -> None:
    page = (ROOT / "docs" / "run-folder.md").read_text()
    outcome = {"results": [{"id": 0, "stats": {"started": 1}}], "virtual_s": 1.0}
    summary = summarise(Config(workers=1), family("ring", 1), outcome)
    worker = summary["workers"][0]
    names = {*summary, *summary["topology"], *worker, *worker["exchanges"]}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_trace_is_documented() -> None:
    """Every event that anything in decent traces has a row, and no row is made up."""
    page = (ROOT / "docs" / "run-folder.md").read_text()
    section = page.split("\n## trace.jsonl\n")[1].split("\n## ")[0]
    events = {
        node.args[0].value
        for file in (ROOT / "decent").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "trace"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert set(re.findall(r"^\| `([\w ]+)` \|", section, re.M)) == events


def test_the_families_are_counted_right() -> None:
    assert f"{len(families())} families" in (ROOT / "CHANGELOG.md").read_text()


def _links() -> list[tuple[Path, str]]:
    found = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page))
        if not re.match(r"https?://", target)
    ]
    return sorted(set(found))


@pytest.mark.parametrize(
    ("page", "target"), _links(), ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_links_lead_somewhere(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists()
    if anchor:
        assert anchor in {_slug(title) for title in re.findall(r"^#+ (.*)$", prose(path), re.M)}


def _slug(title: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def test_every_page_is_in_the_table_of_contents() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    listed = set(index.split("```{toctree}")[1].split("```")[0].split())
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} == listed - {":hidden:"}
