"""What is trained: a model, each worker's data, a loss and a measure of success.

A task is any object with the methods of `Task`. It is named by one of our names, by
"package.module:attribute" or by "path/to/file.py:attribute"; the attribute is a class or a function
that makes a task from options, or a task itself. A batch is whatever the worker's data set yields
once collated; only `loss` looks inside.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from decent import plugins
from decent.errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

BUILT_IN = {
    "digits": "decent.learning.digits:Digits",
    "fashion-mnist": "decent.learning.fashion_mnist:FashionMNIST",
    "ridge": "decent.learning.ridge:Ridge",
    "logistic": "decent.learning.logistic:Logistic",
    "consensus": "decent.learning.consensus:Consensus",
}
METHODS = ("model", "data", "loss", "evaluate")


class Task(Protocol):
    """What a worker needs to train. `optimizer(model) -> torch.optim.Optimizer` may be added;
    without it a worker takes plain SGD. So may `keep(model, steps)`, which is called once, with the
    merged model, or by each worker with its own where they are kept apart; and `alone(config,
    worker, workers)`, which makes the `Trainer` of a worker kept apart."""

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
        maker = plugins.load(target, TaskError)
        description = (inspect.getdoc(maker) or "").split("\n")[0]
        parameters = inspect.signature(maker).parameters
        defaults = {key: parameter.default for key, parameter in parameters.items()}
        entries.append(Entry(name, description, defaults, maker.status()))
    return entries


def load(name: str, run_seed: int | None = None, /, **options: Any) -> Task:
    """The task called `name`, made with `options`; where it takes a seed and none is given, with
    the run's."""
    reference = BUILT_IN.get(name, name)
    if run_seed is not None and "seed" not in options and plugins.is_reference(reference):
        maker = plugins.load(reference, TaskError, "task")
        if not _is_task(maker) and "seed" in inspect.signature(maker).parameters:
            options["seed"] = run_seed
    task = plugins.build("task", name, BUILT_IN, options, TaskError, _is_task)
    if missing := _missing(task):
        raise TaskError(f"task {name!r} lacks {', '.join(missing)}", f"name, {', '.join(METHODS)}")
    return cast(Task, task)


def _is_task(found: Any) -> bool:
    return not isinstance(found, type) and not (callable(found) and _missing(found))


def _missing(task: Any) -> list[str]:
    methods = [method for method in METHODS if not callable(getattr(task, method, None))]
    return methods if hasattr(task, "name") else ["name", *methods]
