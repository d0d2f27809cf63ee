"""What is trained: a model, each worker's data, a loss and a measure of success.

A task is any object with the methods of `Task`. It is named by one of our names, by
"package.module:attribute" or by "path/to/file.py:attribute"; the attribute is a class or a function
that makes a task from options, or a task itself. A batch is whatever the worker's data set yields
once collated; only `loss` looks inside.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast

from decent.errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

BUILT_IN = {
    "digits": "decent.learning.digits:Digits",
    "fashion-mnist": "decent.learning.fashion_mnist:FashionMNIST",
}
METHODS = ("model", "data", "loss", "evaluate")


class Task(Protocol):
    """What a worker needs to train. `optimizer(model) -> torch.optim.Optimizer` may be added;
    without it a worker takes plain SGD."""

    @property
    def name(self) -> str: ...

    def model(self) -> nn.Module:
        """A new model, initialised from torch's global generator, which the caller has seeded."""
        ...

    def data(self, worker: int, workers: int) -> Dataset[Any]:
        """The share of worker 0 ≤ `worker` < `workers`: with a length, indexed by 0, 1, …"""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The loss to descend on one batch, a scalar."""
        ...

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Measures on the global test set, in evaluation mode; the model is left as it was."""
        ...


@dataclass(frozen=True)
class Entry:
    """A built-in task, as `decent tasks` lists it."""

    name: str
    description: str
    options: dict[str, Any]
    status: str


def available() -> list[Entry]:
    """The built-in tasks. Reads no data."""
    entries = []
    for name, target in BUILT_IN.items():
        maker = _imported(target)
        description = (inspect.getdoc(maker) or "").split("\n")[0]
        parameters = inspect.signature(maker).parameters
        defaults = {key: parameter.default for key, parameter in parameters.items()}
        entries.append(Entry(name, description, defaults, maker.status()))
    return entries


def load(name: str, run_seed: int | None = None, /, **options: Any) -> Task:
    """The task called `name`, made with `options`; where it takes a seed and none is given, with
    the run's."""
    if name not in BUILT_IN and ":" not in name:
        near = get_close_matches(name, BUILT_IN, 1)
        raise TaskError(
            f"task {name!r}",
            f'{", ".join(BUILT_IN)}, "package.module:attribute" or "path/to/file.py:attribute"',
            f"did you mean {near[0]!r}?" if near else "",
        )
    found = _imported(BUILT_IN.get(name, name))
    task = found
    if inspect.isclass(found) or (callable(found) and _missing(found)):
        if run_seed is not None and "seed" in inspect.signature(found).parameters:
            options = {"seed": run_seed} | options
        task = _made(name, found, options)
    elif options:
        raise TaskError(
            f"options {', '.join(options)} for task {name!r}",
            "none, because it is a task already",
            "name its class, or a function that makes it",
        )
    if missing := _missing(task):
        raise TaskError(f"task {name!r} lacks {', '.join(missing)}", f"name, {', '.join(METHODS)}")
    return cast(Task, task)


def _missing(task: Any) -> list[str]:
    methods = [method for method in METHODS if not callable(getattr(task, method, None))]
    return methods if hasattr(task, "name") else ["name", *methods]


def _made(name: str, maker: Callable[..., Any], options: dict[str, Any]) -> Any:
    """`maker(**options)`, once every option is one of its own and of the default's type."""
    parameters = inspect.signature(maker).parameters
    open_ended = any(known.kind is known.VAR_KEYWORD for known in parameters.values())
    for key, value in options.items():
        if key not in parameters and not open_ended:
            known = ", ".join(parameters) or "no options"
            raise TaskError(f"option {key!r} of task {name!r}", known)
        if key in parameters and not _fits(value, parameters[key].default):
            kind = type(parameters[key].default).__name__
            raise TaskError(f"option {key} = {value!r} of task {name!r}", f"a value of type {kind}")
    try:
        inspect.signature(maker).bind(**options)
    except TypeError as error:
        raise TaskError(f"task {name!r}: {error}", remedy="give it as an option") from error
    return maker(**options)


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return not isinstance(default, (bool, int, str)) or type(value) is type(default)


def _imported(target: str) -> Any:
    """The attribute that "module:attribute" or "file.py:attribute" names."""
    place, _, attribute = target.rpartition(":")
    try:
        from_file = place.endswith(".py")
        module = _from_file(Path(place)) if from_file else importlib.import_module(place)
    except Exception as error:
        raise TaskError(
            f"task {target!r} cannot be imported ({type(error).__name__}: {error})",
            '"package.module:attribute" on the import path, or "path/to/file.py:attribute"',
        ) from error
    if not hasattr(module, attribute):
        raise TaskError(f"task {target!r}", f"a class, a function or a task {attribute} in {place}")
    return getattr(module, attribute)


def _from_file(path: Path) -> ModuleType:
    """The module in `path`, run anew under a name that no package has."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(f"decent_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
