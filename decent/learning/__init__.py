"""Torch from here up: the flat parameter vector, tasks and their data, one worker's training."""

from __future__ import annotations

from decent.learning.baselines import all_reduce
from decent.learning.batchnorm import has_batch_norm, load_moments, moments, recalibrate
from decent.learning.checkpoint import load_state, merge_files, save_model
from decent.learning.task import Task
from decent.learning.trainer import Trainer
from decent.learning.vector import (
    Layout,
    add_residual,
    bind,
    float_buffers,
    load_vector,
    to_vector,
)

__all__ = [
    "Layout",
    "Task",
    "Trainer",
    "add_residual",
    "all_reduce",
    "bind",
    "float_buffers",
    "has_batch_norm",
    "load_moments",
    "load_state",
    "load_vector",
    "merge_files",
    "moments",
    "recalibrate",
    "save_model",
    "to_vector",
]
