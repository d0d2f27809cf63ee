"""The flat parameter vector: every learnable parameter of a model as a view of one 1-D array.

A worker's state is a vector of length d, and `bind` makes the model live inside it: parameter p of
shape s is `vector[offset : offset + numel].view(s)`, in the order of `model.named_parameters()`, a
shared (tied) parameter once. Writing the vector, also from another process through shared memory,
changes the model, and an optimizer's step changes the vector. Parameter objects stay what they
were (only their `.data` moves), so optimizers, hooks and tied modules keep working.

Learnable means `requires_grad` when the layout is taken. Values are float32 or float64, native.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from decent.errors import ModelError

Vector = NDArray[np.floating]
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Layout:
    """Where each parameter lies in the vector: enough to tell whether two models match."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: str

    @classmethod
    def of(cls, model: nn.Module) -> Layout:
        """The layout of the learnable parameters of `model`; refused if they cannot form one."""
        named = dict(_learnable(model))
        if not named:
            raise ModelError("a model without learnable parameters", "at least one")
        if lazy := [name for name, parameter in named.items() if is_lazy(parameter)]:
            raise ModelError(f"parameter {lazy[0]} has no shape yet", remedy="run one batch first")
        shapes = tuple(tuple(parameter.shape) for parameter in named.values())
        return cls(tuple(named), shapes, _common_dtype(named))

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def offsets(self) -> list[int]:
        return list(accumulate(self.sizes[:-1], initial=0))

    @property
    def numel(self) -> int:
        return sum(self.sizes)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ where names, shapes, order or dtype do."""
        text = repr((self.dtype, tuple(zip(self.names, self.shapes, strict=True))))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def views(self, flat: Tensor) -> Iterator[Tensor]:
        """The parameters inside `flat`, in order."""
        for part, shape in zip(torch.split(flat, self.sizes), self.shapes, strict=True):
            yield part.view(shape)

    def describe_difference(self, other: Layout) -> str:
        """The first way in which `other` differs, in words; empty where it does not."""
        if self.dtype != other.dtype:
            return f"dtype {self.dtype} against {other.dtype}"
        mine = dict(zip(self.names, self.shapes, strict=True))
        theirs = dict(zip(other.names, other.shapes, strict=True))
        for name in [*mine, *theirs]:
            if name not in theirs or name not in mine:
                return f"parameter {name} is on one side only"
            if mine[name] != theirs[name]:
                return f"parameter {name} has shape {mine[name]} against {theirs[name]}"
        moved = (pair for pair in zip(self.names, other.names, strict=True) if pair[0] != pair[1])
        return next((f"parameter {a} stands where {b} does" for a, b in moved), "")


def bind(model: nn.Module, vector: Vector | Tensor) -> Layout:
    """Move the learnable parameters of `model`, with their values, into `vector`.

    `vector` is 1-D, contiguous, writable, on the CPU, of the model's dtype and exact length.
    """
    layout = Layout.of(model)
    flat = _flat(vector, layout)
    parameters = dict(_learnable(model))
    for name, parameter in parameters.items():
        _check_movable(name, parameter)
    _check_apart(parameters)
    for parameter, view in zip(parameters.values(), layout.views(flat), strict=True):
        view.copy_(parameter.data)
        parameter.data = view
    return layout


def load_vector(model: nn.Module, vector: Vector | Tensor) -> None:
    """Copy `vector` into the learnable parameters of `model`, bound or not, on any device."""
    layout = Layout.of(model)
    views = layout.views(_flat(vector, layout, writable=False))
    with torch.no_grad():
        for (_, parameter), view in zip(_learnable(model), views, strict=True):
            parameter.copy_(view)


def to_vector(model: nn.Module) -> Vector:
    """A copy of the learnable parameters of `model` as one vector of its dtype."""
    layout = Layout.of(model)
    flat = torch.empty(layout.numel, dtype=getattr(torch, layout.dtype))
    for (_, parameter), view in zip(_learnable(model), layout.views(flat), strict=True):
        view.copy_(parameter.detach())
    copy: Vector = flat.numpy()
    return copy


def add_residual(model: nn.Module, layout: Layout, rows: Vector, residual: Sequence[float]) -> None:
    """Add Σ_s residual[s]·rows[s] to the gradients: what DADAO adds to ∇f before a step."""
    total = torch.zeros(layout.numel, dtype=getattr(torch, layout.dtype))
    for share, row in zip(residual, rows, strict=True):
        if share:
            total += float(share) * torch.from_numpy(row)
    named = dict(model.named_parameters())
    for name, part in zip(layout.names, layout.views(total), strict=True):
        gradient = named[name].grad
        if gradient is not None:
            gradient += part.to(gradient.device)


def float_buffers(model: nn.Module) -> list[str]:
    """Names of the floating-point buffers: what a model learns beside the vector, such as norm
    statistics, and what therefore needs a policy when models are merged."""
    return [name for name, buffer in model.named_buffers() if buffer.is_floating_point()]


def _learnable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return (pair for pair in model.named_parameters() if pair[1].requires_grad)


def _common_dtype(parameters: dict[str, nn.Parameter]) -> str:
    dtypes = {name: str(p.dtype).removeprefix("torch.") for name, p in parameters.items()}
    first, dtype = next(iter(dtypes.items()))
    remedy = "keep parameters in float32 and compute in lower precision under torch.autocast"
    if odd := [name for name, other in dtypes.items() if other != dtype]:
        given = f"parameter {odd[0]} is {dtypes[odd[0]]} and {first} is {dtype}"
        raise ModelError(given, "one dtype", remedy)
    if dtype not in DTYPES:
        raise ModelError(f"parameters of {dtype}", " or ".join(DTYPES), remedy)
    return dtype


def _flat(vector: Vector | Tensor, layout: Layout, *, writable: bool = True) -> Tensor:
    """`vector` as a tensor over the same memory (a copy where it may be and has to be)."""
    dtype = str(vector.dtype).removeprefix("torch.")
    expected = f"{layout.numel} contiguous values of {layout.dtype} in one dimension"
    if tuple(vector.shape) != (layout.numel,) or dtype != layout.dtype:
        raise ModelError(f"a vector of shape {tuple(vector.shape)} and dtype {dtype}", expected)
    if isinstance(vector, Tensor):
        if writable and not (vector.is_contiguous() and vector.device.type == "cpu"):
            raise ModelError(f"a vector on {vector.device}, strides {vector.stride()}", expected)
        return vector.detach()
    if not writable:
        return torch.from_numpy(np.require(vector, requirements=["C", "W"]))
    if not (vector.flags.c_contiguous and vector.flags.writeable):
        raise ModelError("a strided or read-only vector", expected + ", writable")
    return torch.from_numpy(vector)


def _check_movable(name: str, parameter: nn.Parameter) -> None:
    if parameter.device.type != "cpu":
        raise ModelError(
            f"parameter {name} on {parameter.device}",
            "parameters on the CPU",
            "device parameters are mirrored on the host: bind the mirror, not the model",
        )
    if not torch.isfinite(parameter.data).all():
        raise ModelError(
            f"parameter {name} holds NaN or infinity",
            "finite values",
            "look at the initialisation or the checkpoint it was loaded from",
        )


def _check_apart(parameters: dict[str, nn.Parameter]) -> None:
    """Two parameter objects over the same memory would silently come apart when moved."""
    spans = sorted(
        (p.data_ptr(), p.data_ptr() + p.numel() * p.element_size(), name)
        for name, p in parameters.items()
        if p.numel() and p.is_contiguous()
    )
    for (_, end, name), (start, _, other) in pairwise(spans):
        if start < end:
            raise ModelError(
                f"parameters {name} and {other} share memory",
                "one nn.Parameter object for what is tied",
                "tie modules by assigning the parameter, not its .data",
            )
