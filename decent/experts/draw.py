"""What trajectories carry along from step to step: each its own random stream and its cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from decent.schedule import stream


@dataclass(frozen=True)
class Draw:
    """What trajectories carry along: each its own randomness and the cluster it keeps.

    Trajectory i of a run has the stream (seed, i), whatever batch it is in.
    """

    streams: Callable[[int], np.random.Generator]
    cluster: Tensor
    """[N] the cluster a row keeps (ancestral) or truly has (oracle); −1: none"""
    committed: Tensor
    """[N] whether a row had committed to an expert that was lost since"""
    rows: Tensor
    """[N] places of these rows in `streams`, `cluster` and `committed`"""

    @classmethod
    def of(cls, seed: int, trajectories: Sequence[int], labels: Tensor | None = None) -> Draw:
        """For `trajectories`, by number; `labels` [N] are their true clusters, if known."""
        count = len(trajectories)
        cluster = torch.full((count,), -1) if labels is None else labels.long().cpu().clone()

        @cache
        def streams(row: int) -> np.random.Generator:
            return stream(seed, "trajectory", trajectories[row])

        return cls(streams, cluster, torch.zeros(count, dtype=torch.bool), torch.arange(count))

    def at(self, rows: Tensor) -> Draw:
        """The part for `rows`, a mask or indices; it shares streams and memory."""
        return replace(self, rows=self.rows[rows.cpu()])

    def uniform(self, n: int) -> Tensor:
        """[N, n] float64 in [0, 1)."""
        drawn = [self.streams(row).random(n) for row in self.rows.tolist()]
        return torch.from_numpy(np.array(drawn).reshape(len(drawn), n))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """[N, *shape] float64, standard normal."""
        drawn = [self.streams(row).standard_normal(tuple(shape)) for row in self.rows.tolist()]
        return torch.from_numpy(np.array(drawn).reshape(len(drawn), *shape))

    def kept(self) -> Tensor:
        """[N] the clusters of these rows."""
        return self.cluster[self.rows]

    def keep(self, cluster: Tensor) -> None:
        """Remember `cluster` [N] for these rows."""
        self.cluster[self.rows] = cluster.cpu()

    def restart(self) -> None:
        """Forget what these rows were: they begin again, their streams go on."""
        self.cluster[self.rows] = -1
        self.committed[self.rows] = False

    def commit(self, rows: Tensor) -> None:
        """Note that `rows`, a mask, had committed to an expert that is lost."""
        self.committed[self.rows] |= rows.cpu()
