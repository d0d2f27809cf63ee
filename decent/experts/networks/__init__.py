"""The networks that experts and routers are made of, by name.

    build("mlp", (64,))                          an expert: (x, t, condition) → velocity [N, 64]
    build("mlp", (64,), outputs=8, width=48)     a router: → logits [N, 8]
    build("package.module:Class", (4, 32, 32), classes=10, depth=12)

A network of a user's own is a class or function that takes `shape`, `classes`, `outputs` and its
options by name, and makes a module of that signature. `classes` > 0: its condition is an int64
label for each row, −1 standing for none.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from decent import plugins
from decent.errors import ModelError

BUILT_IN = {
    "mlp": "decent.experts.networks.mlp:MLP",
    "dit": "decent.experts.networks.dit:DiT",
    "diffusers": "decent.experts.networks.diffusers:Diffusers",
    "prior_corrected": "decent.experts.router:PriorCorrected",
}


def build(
    name: str,
    shape: tuple[int, ...],
    classes: int = 0,
    outputs: int | None = None,
    **options: Any,
) -> nn.Module:
    """A new network for data of `shape`, initialised from torch's global generator, which the
    caller has seeded. `outputs`: that many logits in place of a velocity.

    Raises ModelError for an unknown name, and for options it does not have or cannot use.
    """
    if not shape or min(shape) < 1 or classes < 0 or (outputs is not None and outputs < 1):
        raise ModelError(
            f"a network of shape {shape}, {classes} classes, {outputs} outputs",
            "sizes of 1 or more, classes of 0 or more, outputs of 1 or more",
        )
    given = {"shape": tuple(shape), "classes": classes, "outputs": outputs, **options}
    made = plugins.build("network", name, BUILT_IN, given, ModelError, lambda found: False)
    if not isinstance(made, nn.Module):
        raise ModelError(f"network {name!r} made {made!r}", "a torch.nn.Module")
    return made
