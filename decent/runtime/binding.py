"""How a model lives in the shared vector: in it where it can, mirrored where it cannot.

On the CPU the parameters *are* row 0 of the shared state, and corrections from peers land in them
during forward and backward. On another device the vector is a mirror: at the end of a step what
training changed is added to it, and the model takes over what peers have changed.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from torch import nn

from decent.learning import Layout, bind, load_vector, to_vector

Vector = np.ndarray[Any, Any]


class Binding(Protocol):
    layout: Layout

    def reconcile(self) -> None:
        """Called between the optimizer's step and the next forward, in the optimizer's turn."""

    def pull(self) -> None:
        """The vector was replaced as a whole: let the model follow."""


class Direct:
    """The model's parameters are views of `vector`."""

    def __init__(self, model: nn.Module, vector: Vector) -> None:
        self.layout = bind(model, vector)

    def reconcile(self) -> None:
        pass

    def pull(self) -> None:
        pass


class Mirror:
    """The model keeps its own memory; `base` is what it and the vector last agreed on."""

    def __init__(self, model: nn.Module, vector: Vector) -> None:
        self.layout = Layout.of(model)
        self._model, self._vector = model, vector
        vector[:] = self._base = to_vector(model)

    def reconcile(self) -> None:
        self._vector += to_vector(self._model) - self._base
        self.pull()

    def pull(self) -> None:
        self._base = self._vector.copy()
        load_vector(self._model, self._base)


def attach(model: nn.Module, vector: Vector) -> Binding:
    """Direct on the CPU, mirrored elsewhere."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    return Direct(model, vector) if on_cpu else Mirror(model, vector)
