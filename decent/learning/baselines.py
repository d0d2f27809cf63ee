"""What every method is measured against: synchronous data-parallel SGD.

Each step takes the batch that every worker would have drawn and descends along the mean of the n
gradients, (1/n) Σ_i ∇f_i(x; ξ_i), as an all-reduce after every step would. Batches all have the
same size, so where the loss is a mean over samples and the model has no batch norm, this is one
step on the n batches joined. The gradients are taken one after the other, so that it also holds
where that is not so.
"""

from __future__ import annotations

from decent.learning.batches import endless, share
from decent.learning.task import Task
from decent.learning.trainer import Trainer
from decent.schedule.streams import stream


def all_reduce(
    task: Task, workers: int, steps: int, batch_size: int, seed: int
) -> dict[str, float]:
    """The task's measures after `steps` steps of `workers` workers in lockstep.

    Initialisation, shards and batches are those of `Trainer(task, k, workers, seed, batch_size)`.
    """
    trainer = Trainer(task, 0, workers, seed, batch_size)
    streams = [
        endless(share(task, worker, workers), batch_size, stream(seed, "batches", worker))
        for worker in range(workers)
    ]
    for _ in range(steps):
        trainer.update([next(batches) for batches in streams])
    return trainer.evaluate()
