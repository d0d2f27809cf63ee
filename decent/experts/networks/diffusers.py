"""A transformer of diffusers as an expert: `DiTTransformer2DModel`, `SD3Transformer2DModel` and
others of this signature.

    model(hidden_states [N, C, H, W], timestep [N], class_labels or encoder_hidden_states and
          pooled_projections) → velocity [N, C, H, W]

As `FlowMatchEulerDiscreteScheduler` has it, timestep = 1000·t with t = 1 at the noise, and the
answer is ε − x₀: the convention here, so neither sign nor time is turned. Of more channels than C,
the first C count. Labels go to models with class labels as they are, no condition as one label
more; to the others as one learned token and one learned pooled vector for each.

    build("diffusers", (4, 32, 32), classes=10, model="DiTTransformer2DModel", config={…})
    Diffusers.of(DiTTransformer2DModel.from_pretrained(folder), classes=10)
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decent.errors import MissingExtra, ModelError

STEPS = 1000.0
"""timesteps of t from 0 to 1"""


class Diffusers(nn.Module):
    """(x [N, C, H, W], t [N], condition [N] or None) → velocity [N, C, H, W]. Raises MissingExtra
    without diffusers, ModelError for a class or configuration that cannot be used."""

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        outputs: int | None = None,
        model: str = "DiTTransformer2DModel",
        config: dict[str, Any] | None = None,
    ) -> None:
        if outputs is not None or len(shape) != 3:
            raise ModelError(
                f"network 'diffusers' of shape {list(shape)} with outputs = {outputs}",
                "samples [C, H, W], and no router",
                "take the network 'dit' as router",
            )
        sizes = {"in_channels": shape[0], "out_channels": shape[0], "sample_size": shape[1]}
        labels = {"num_embeds_ada_norm": classes + 1} if model.startswith("DiT") else {}
        try:
            made = _class(model)(**(sizes | labels | (config or {})))
        except (TypeError, ValueError) as error:
            raise ModelError(f"{model}: {error}", "a configuration that diffusers takes") from None
        self._wrap(made, classes)

    @classmethod
    def of(cls, model: nn.Module, classes: int = 0) -> Diffusers:
        """Around a model that is there; its label embedding must have a row more than `classes`."""
        wrapper = cls.__new__(cls)
        wrapper._wrap(model, classes)
        return wrapper

    def _wrap(self, model: nn.Module, classes: int) -> None:
        super().__init__()
        self.model, self.classes = model, classes
        taken = inspect.signature(model.forward).parameters
        self.labelled, self.told = "class_labels" in taken, "encoder_hidden_states" in taken
        if self.told:
            sizes: Any = model.config
            self.token = nn.Embedding(classes + 1, sizes.joint_attention_dim)
            self.pooled = nn.Embedding(classes + 1, sizes.pooled_projection_dim)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        labels = torch.full_like(t, -1, dtype=torch.int64) if condition is None else condition
        labels = labels.masked_fill(labels < 0, self.classes)
        given: dict[str, Tensor] = {"class_labels": labels} if self.labelled else {}
        if self.told:
            given["encoder_hidden_states"] = self.token(labels)[:, None]
            given["pooled_projections"] = self.pooled(labels)
        answer = self.model(hidden_states=x, timestep=STEPS * t, return_dict=False, **given)[0]
        velocity: Tensor = answer[:, : x.shape[1]]
        return velocity

    def save_pretrained(self, folder: str | Path) -> None:
        """The model alone, as diffusers reads it."""
        model: Any = self.model
        model.save_pretrained(folder)


def _class(name: str) -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtra(
            f"network 'diffusers' ({error})", "the package diffusers",
            "install it: pip install 'decent[diffusers]'",
        ) from None  # fmt: skip
    found = getattr(diffusers, name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"diffusers has no model {name!r}", "such as DiTTransformer2DModel")
    return found
