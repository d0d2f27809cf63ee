"""`Gossip`: what a training script talks to.

    gossip = decent.Gossip(model, optimizer)
    for batch in loader:
        loss(model, batch).backward()
        optimizer.step()
        gossip.step()
    gossip.merge()

The optimizer writes the model's parameters in place, a communicator process adds the peers'
corrections to them, and hooks around `optimizer.step()` keep the two apart. `step()` counts and
ticks the clock; it never waits for a peer. Alone (no `decent launch`, no topology) all of it does
nothing at no cost.
"""

from __future__ import annotations

import atexit
import os
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from torch import nn
from torch.optim import Optimizer

from decent import dynamics as dynamics_package
from decent import merge as merge_package
from decent import schedule as schedule_package
from decent.dynamics import Dynamics, system_on
from decent.errors import ModelError
from decent.folder import worker_folder, write_json
from decent.learning import (
    Layout,
    add_residual,
    has_batch_norm,
    load_moments,
    load_vector,
    moments,
    recalibrate,
    save_model,
    to_vector,
)
from decent.merge import Merge
from decent.runtime import group
from decent.runtime.binding import Binding, attach
from decent.runtime.board import Board
from decent.runtime.gate import OptimizerGate
from decent.runtime.keeper import Keeper, Stateful
from decent.runtime.link import Partner, spec_of
from decent.runtime.world import World, place
from decent.topology import Topology

Vector = np.ndarray[Any, Any]
RESULT = "result.json"
REPORT_S = 0.2
PATIENCE_S = 30.0
"""beyond the time a peer may take to appear: for the communicator to say that all have"""


class Gossip:
    """Lets `model` take part in a decentralised run while `optimizer` trains it.

    Who, when, how and into what come from `decent launch`, or are given here: a `Topology`; a
    schedule (name, object or generator function); dynamics and merge (name or object). `steps` is
    the planned number of local steps, for schedules that look at progress.

    Raises InputError for what cannot be (a model without float parameters, a topology with another
    number of workers), PeerRefused if a neighbour is not of this run or has another model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        topology: Topology | None = None,
        schedule: Any = None,
        dynamics: str | Dynamics | None = None,
        merge: str | Merge | None = None,
        steps: int | None = None,
        world: World | None = None,
    ) -> None:
        self.world, self.topology = place(world, topology)
        self._model, self._optimizer = model, optimizer
        config = self.world.config
        self._merge = _made(merge, merge_package.get) or config.make_merge()
        when = schedule_package.get(schedule) if schedule else config.make_schedule()
        self._apart = self.world.keeps_apart(self._merge, when)
        self._planned = steps
        self._round = 0
        self._reported_s = -np.inf
        self._status: dict[str, Any] = {"worker": self.world.me, "state": "training"}
        self._stats: dict[str, Any] = {}
        together = 1 if self._apart else self.topology.n
        self._keeper = Keeper(self.world, together, model, optimizer)
        self._steps, self._metrics = self._keeper.step, self._keeper.journal
        self._result: dict[str, Any] = {"metrics": self._keeper.measured, "merged": {}}
        self._partner: Partner | None = None
        self._gate: OptimizerGate | None = None
        self._pid, self._closed = os.getpid(), False
        atexit.register(self.close)
        self.merged_among: list[int] = [self.world.me]
        self._keeper.restore()
        if together > 1:
            self._join(_made(dynamics, dynamics_package.get) or config.make_dynamics(), when)
        self._keeper.begin(self._partner)

    # one worker among others

    def _join(self, dynamics: Dynamics, schedule: schedule_package.Schedule) -> None:
        """Move the model into shared memory, start the communicator, meet the neighbours."""
        layout = Layout.of(self._model)
        self._result["parameters"] = layout.numel
        system = system_on(dynamics, self.topology)
        spec = spec_of(self.world, self.topology, dynamics, schedule, layout, self._planned)
        accounts = len(spec.kept or ())
        self._board = Board(len(system.slots), layout.numel, layout.dtype, accounts=accounts)
        self._binding: Binding = attach(self._model, self._board.state[0])
        self._board.state[1:] = dynamics.initial(self._board.state[0])[1:]
        self._needs_residual = bool(system.residual.any())
        self._gate = OptimizerGate(self._board.fd, spec.strides(self._board))
        self._board.begin(self._steps)
        self._partner = Partner(spec, self._board, meanwhile=self._meanwhile)
        self._hooks = [
            self._optimizer.register_step_pre_hook(self._before),
            self._optimizer.register_step_post_hook(self._after),
        ]
        self._report(state="starting", communicator=self._partner.pid)
        said = self._partner.hear("ready", spec.limits.start_s + PATIENCE_S)
        self._steps = said["steps"]  # a neighbour's, if there is no checkpoint to rejoin from
        self._board.begin(self._steps)
        if self.resumed or self.world.rejoins:
            self._binding.pull()
        self._report(state="ready")
        self.world.gate()
        self._report(state="training")

    def _before(self, *_: Any) -> None:
        assert self._gate is not None
        self._gate.enter()
        if self._needs_residual:
            residual = self._board.residual.tolist()
            add_residual(self._model, self._binding.layout, self._board.state, residual)

    def _after(self, *_: Any) -> None:
        assert self._gate is not None
        self._binding.reconcile()
        self._gate.leave()

    def step(self, **metrics: float) -> None:
        """One local step is done. `metrics`, such as loss=…, go to metrics.jsonl and the display.

        Raises what the communicator failed with, if it did.
        """
        self._steps += 1
        now_s = time.monotonic()
        if self._partner is not None:
            if self._board.tick(now_s - self.world.origin_s):
                self._partner.say(do="wake")
            if self._board.failed:
                self._partner.hear("error", 5.0)
        if metrics and (self._steps % 10 == 0 or self._steps == self._planned):
            self._metrics({"step": self._steps, **metrics})
        self._status.update(step=self._steps, **metrics)
        self._keeper.check(self._steps)
        if now_s > self._reported_s + REPORT_S:
            if self._partner is not None:
                self._partner.check()
            self._report()

    # going on after a crash

    @property
    def steps(self) -> int:
        """Local steps done; more than 0 from the start where the run is resumed."""
        return self._steps

    @property
    def resumed(self) -> bool:
        """Whether this process goes on from a checkpoint."""
        return bool(self._keeper.found)

    def keep(self, **objects: Stateful) -> None:
        """What checkpoints are to hold beside model, optimizer and random numbers: anything with
        `state_dict()` and `load_state_dict()`. Where the run is resumed it is put back at once."""
        self._keeper.keep(objects)

    def _meanwhile(self) -> None:
        """While something is waited for."""
        self._report()
        self._keeper.check(self._steps)

    def log(self, **metrics: float) -> None:
        """Measures of the model for the run's summary: of this worker's own model before `merge()`,
        of the merged one after it."""
        self._result["metrics" if self._round == 0 else "merged"].update(metrics)
        self._metrics({"step": self._steps, "merged": self._round > 0, **metrics})

    def merge(
        self,
        samples: int = 1,
        batches: Iterable[Any] | None = None,
        forward: Callable[[nn.Module, Any], object] | None = None,
    ) -> list[int]:
        """The single global merge: the model becomes the weighted mean over all living workers.

        Waits until everyone has finished training; returns the ids of those merged. `samples`
        weighs this worker where the merge is by samples. Batch-norm statistics follow the policy of
        the config; to recalibrate them it takes `batches` of local data (and `forward(model,
        batch)` where a batch is not the model's input), else they are averaged. In a process that
        `decent` did not launch the mean is over torch.distributed's process group, if there is one.
        Where the merge is "apart" the model stays as it is, and nobody is waited for.
        """
        if self._round > 0:
            raise ModelError(
                "merge() a second time", "one global merge, at the end",
                "use mean() for further means",
            )  # fmt: skip
        weight = self._merge.weight(samples)
        self._save("model")
        if self._apart:
            return self.merged_among
        if self._partner is not None:
            assert self._gate is not None
            self._gate.leave()
            self._report(state="merging", step=self._steps)
            self.merged_among = self._reduce(None, weight)["among"]
            self._binding.pull()
        elif group.grouped():
            load_vector(self._model, group.mean(to_vector(self._model), weight))
            self.merged_among = group.members()
        self._round = max(1, self._round)
        self._merge_norms(weight, batches, forward)
        if self.world.me == min(self.merged_among):
            self._save("merged")
        return self.merged_among

    def _merge_norms(
        self,
        weight: float,
        batches: Iterable[Any] | None,
        forward: Callable[[nn.Module, Any], object] | None,
    ) -> None:
        policy = self.world.config.merge.norm_statistics
        if policy == "local" or not has_batch_norm(self._model):
            return
        if policy == "recalibrate" and batches is not None:
            recalibrate(self._model, batches, forward)
        load_moments(self._model, self.mean(moments(self._model), weight))

    def _save(self, name: str) -> None:
        """`workers/<id>/model.safetensors`, or the run's `merged.safetensors`."""
        folder = self.world.folder
        if folder is not None:
            home = folder if name == "merged" else worker_folder(folder, self.world.me)
            save_model(home / f"{name}.safetensors", self._model, {"steps": str(self._steps)})

    def mean(self, vector: Vector, weight: float = 1.0) -> Vector:
        """The weighted mean over all living workers of any vector, after `merge()`.

        Everyone must call it, in the same order. Messages have the model's precision; what they
        round off is averaged in a second round, so that precision is that of the differences
        between workers, however large what they have in common.
        """
        if self._round == 0:
            raise ModelError(
                "mean() before merge(), or of workers kept apart", "the merge first",
                "call merge() before it",
            )  # fmt: skip
        if self._partner is None:
            return group.mean(vector, weight) if group.grouped() else vector
        rough = self._mean(vector, weight)
        return rough + self._mean(vector - rough, weight)

    def _mean(self, vector: Vector, weight: float) -> Vector:
        flat = np.ascontiguousarray(vector, self._board.state.dtype)
        answer = self._reduce(flat.tobytes(), weight)
        mean = np.frombuffer(answer["vector"], self._board.state.dtype)
        return mean.reshape(vector.shape).astype(np.float64)

    def _reduce(self, vector: bytes | None, weight: float) -> dict[str, Any]:
        assert self._partner is not None
        self._partner.say(do="merge", round=self._round, weight=weight, vector=vector)
        self._round += 1
        return self._partner.hear("merged")

    def close(self) -> dict[str, Any]:
        """Leave the run in good order; the communicator's final statistics. May be repeated."""
        if os.getpid() != self._pid or self._closed:
            return self._stats
        self._closed = True
        atexit.unregister(self.close)
        self._keeper.close()
        if self._partner is not None:
            assert self._gate is not None
            self._gate.leave()
            for hook in self._hooks:
                hook.remove()
            partner, self._partner = self._partner, None
            self._stats = partner.part()
        self._write_result()
        return self._stats

    def _write_result(self) -> None:
        """`workers/<id>/result.json`: what the run's summary says of this worker."""
        self._metrics.close()
        if self.world.folder is not None:
            self._result |= {
                "id": self.world.me, "steps": self._steps, "loss": self._status.get("loss"),
                "stats": self._stats, "wait_ms": self.wait_ms(),
                "merged_among": self.merged_among if self._round else [],
                "checkpoints": self._keeper.report(),
            }  # fmt: skip
            write_json(worker_folder(self.world.folder, self.world.me) / RESULT, self._result)

    @property
    def waits_s(self) -> list[float]:
        """How long each `optimizer.step()` waited for the communicator, in seconds; the last ones
        of a long run."""
        return list(self._gate.waits_s) if self._gate else []

    def wait_ms(self) -> dict[str, float]:
        """Median of `waits_s`, and the longest ever, in milliseconds."""
        waits = self.waits_s
        if self._gate is None or not waits:
            return {}
        return {"median": 1e3 * statistics.median(waits), "max": 1e3 * self._gate.longest_s}

    def __enter__(self) -> Gossip:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _report(self, **news: Any) -> None:
        self._reported_s = time.monotonic()
        self._status.update(news)
        if self._partner is not None:
            counters = self._board.counters()
            exchanges = counters["started"] + counters["answered"]
            self._status.update(counters, exchanges=round(exchanges))
        self.world.report({"steps": self._planned, **self._status})


def _made(given: Any, get: Any) -> Any:
    return get(given) if isinstance(given, str) else given
