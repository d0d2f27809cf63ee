"""Experts: isolated flow-matching models on parts of the data, a light router, one ensemble.

Everywhere t = 0 is data and t = 1 noise, x_t = α_t x₀ + σ_t ε; on the linear path the velocity is
u = ε − x₀, and sampling integrates t from 1 to 0. An expert, or any single model, is a callable
(x [N, *S], t [N], condition or none) → velocity [N, *S]; a router gives logits [N, K] whose softmax
is p(k | x_t, t, c). Conditions are class labels [N], −1 for none. Names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "AsVelocity": "prediction",
    "COSINE": "path",
    "Ensemble": "ensemble",
    "Guided": "guidance",
    "LINEAR": "path",
    "PairedLoss": "metrics",
    "Prediction": "prediction",
    "Samples": "sampling",
    "Shelf": "shelf",
    "Strategy": "strategy",
    "log_likelihood": "likelihood",
    "open_pipeline": "store",
    "sample": "sampling",
}

if TYPE_CHECKING:
    from decent.experts.ensemble import Ensemble as Ensemble
    from decent.experts.guidance import Guided as Guided
    from decent.experts.likelihood import log_likelihood as log_likelihood
    from decent.experts.metrics import PairedLoss as PairedLoss
    from decent.experts.path import COSINE as COSINE
    from decent.experts.path import LINEAR as LINEAR
    from decent.experts.prediction import AsVelocity as AsVelocity
    from decent.experts.prediction import Prediction as Prediction
    from decent.experts.sampling import Samples as Samples
    from decent.experts.sampling import sample as sample
    from decent.experts.shelf import Shelf as Shelf
    from decent.experts.store import open_pipeline as open_pipeline
    from decent.experts.strategy import Strategy as Strategy


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"decent.experts.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'decent.experts' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOMES)
