"""Experts of one small architecture asked at once, each for its own rows.

The rows are sorted by expert. What the network does to every row alike is done to all of them in
one call; a layer with weights is called for each expert, on its part of them. Of eight calls of 32
rows most is overhead, which is so paid once. The layers read the experts' own tensors: nothing is
copied, and experts may be trained, moved and loaded as ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decent.experts.networks.mlp import MLP
from decent.experts.networks.parts import Conditioning
from decent.experts.prediction import Model

MOST = 1 << 16
"""rows · width: beyond, what a layer leaves is no longer at hand (in a cache of 1 MB) for the
next, and calls for each expert are faster"""
KNOWN = {MLP, Conditioning, nn.ModuleList, nn.Linear, nn.Embedding}


class Together:
    """`experts`, MLPs of one form, as one network that answers for all of them."""

    def __init__(self, experts: Sequence[MLP]) -> None:
        self.width, self.counts = experts[0].width, list[int]()
        self._network = self._one(experts)

    def __call__(self, counts: list[int], x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """Velocities [N, *S] at x [N, *S]: the first counts[0] rows by expert 0, and so on."""
        self.counts = counts
        velocity: Tensor = self._network(x, t, condition)
        return velocity

    def pays(self, rows: int) -> bool:
        """Whether that is faster than a call for each expert; `rows` in all."""
        return 0 < rows * self.width <= MOST

    def _one(self, modules: Sequence[nn.Module]) -> nn.Module:
        """Like the first of `modules`, its layers standing for those of all."""
        if isinstance(modules[0], nn.Linear | nn.Embedding):
            return _Layer(self, modules)
        one = copy.copy(modules[0])  # its attributes and buffers are the expert's own
        one._modules = {
            name: self._one([each.get_submodule(name) for each in modules])
            for name, _ in modules[0].named_children()
        }
        return one


class _Layer(nn.Module):
    """One layer of all experts: [N, …] → [N, outputs], part by part."""

    def __init__(self, together: Together, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self._together = together
        linear = isinstance(layers[0], nn.Linear)
        self._call: Callable[..., Tensor] = F.linear if linear else F.embedding
        self._tensors = [each._parameters for each in layers]

    def forward(self, rows: Tensor) -> Tensor:
        counts = self._together.counts
        parts = zip(self._tensors, rows.split_with_sizes(counts), counts, strict=True)
        return torch.cat([self._call(part, *own.values()) for own, part, count in parts if count])


def together(experts: Sequence[Model]) -> Together | None:
    """`experts` as one, if all are MLPs of one form, their layers as they were built."""
    alike = [each for each in experts if type(each) is MLP and _types(each) <= KNOWN]
    if len(alike) < len(experts) or len({_form(each) for each in alike}) != 1:
        return None
    return Together(alike)


def _types(module: nn.Module) -> set[type[nn.Module]]:
    return {type(each) for each in module.modules()}


def _form(expert: MLP) -> tuple[object, ...]:
    return (expert.outputs, *((name, each.shape) for name, each in expert.named_parameters()))
