"""The student: its target, and the minimiser of its loss."""

from __future__ import annotations

import torch
from torch import Tensor

from decent.experts.distil import Taught
from decent.experts.settings import TrainingTable


def test_each_sample_is_taught_by_its_own_expert_at_its_own_condition() -> None:
    torch.manual_seed(0)
    clusters, labels = torch.arange(40) % 4, torch.arange(40) % 3
    x = torch.randn(40, 2)

    def expert(k: int):  # type: ignore[no-untyped-def]
        def velocity(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            return k + 10 * condition[:, None] + t[:, None] * x

        return velocity

    table = TrainingTable(batch_size=64, drop_condition=0.5)
    taught = Taught(x, clusters, labels, [expert(k) for k in range(4)], table)
    seen: list[Tensor] = []

    def student(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        seen.append(condition)
        return 10 * condition[:, None] + t[:, None] * x

    loss = taught(student)  # type: ignore[arg-type]
    assert 0 < loss < 9  # what is left is k², k the row's cluster
    assert (seen[0] == -1).any()
    assert (seen[0] >= 0).any()
    only = Taught(x, torch.full((40,), 2), labels, [expert(k) for k in range(4)], table)
    torch.testing.assert_close(only(student), torch.tensor(4.0))  # type: ignore[arg-type]
