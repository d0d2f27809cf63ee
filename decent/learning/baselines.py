"""What every method is measured against: synchronous data-parallel SGD.

Each step takes the batch that every worker would have drawn and descends along the mean of the n
gradients, (1/n) Σ_i ∇f_i(x; ξ_i), as an all-reduce after every step would. Batches all have the
same size, so where the loss is a mean over samples and the model has no batch norm, this is one
step on the n batches joined. The gradients are taken one after the other, so that it also holds
where that is not so.
"""

from __future__ import annotations

from collections.abc import Sequence

from decent.learning.trainer import Trainer


def all_reduce(trainers: Sequence[Trainer], steps: int) -> dict[str, float]:
    """The task's measures after `steps` steps of the `trainers`' workers in lockstep.

    The first one's model is trained, on the batches of all.
    """
    for _ in range(steps):
        trainers[0].update([trainer.next_batch() for trainer in trainers])
    return trainers[0].evaluate()
