"""INTO what the replicas become: one operator per file, numpy only."""

from __future__ import annotations

from decent.merge.apart import Apart, kept_apart
from decent.merge.averaging import average, check_weights
from decent.merge.mean import Mean
from decent.merge.operator import Merge, get
from decent.merge.weighted import Weighted

__all__ = ["Apart", "Mean", "Merge", "Weighted", "average", "check_weights", "get", "kept_apart"]
