"""DADAO's dual does not forget: a half that is not applied moves the solution for good, by exactly
what is predicted; with the protocol intact nothing does.

Σ_i (α̃z_i + αz̃_i) is conserved by all else, so z_i and z̃_i come to rest around
z_∞ = (α̃z̄ + αz̃̄)/(α + α̃), and x at the solution of Σ_i ∇f_i(x) = −n·z_∞.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decent.dynamics import Array, Dadao, system_on
from decent.schedule import Poisson, stream
from decent.testing import Limits, Network, cluster, cut, duplicate, lose
from decent.topology import family
from decent.worker import Worker
from decent.worker.audit import Report, audit

GRAPH = family("complete", 3, rate=1.0)
MU, L = 1.0, 10.0
CURVATURE = np.array([1.0, 4.0, 10.0])
CENTRES = stream(0, "centres").normal(size=(3, 4))
OPTIMUM = CURVATURE @ CENTRES / CURVATURE.sum()
STEPS = 900


def descend(worker: Worker) -> None:
    """A gradient event on f_i(x) = ½ a_i ‖x − c_i‖², in the relative basis."""
    relative, rows = worker.slots.system.relative, worker.slots.array
    gradient = CURVATURE[worker.me] * (rows[0] - CENTRES[worker.me])
    rows[0] += relative.kick[0] * (gradient + relative.residual @ rows)


def solve(lose_one: bool, **options: Any) -> tuple[Array, Array, Report]:
    """Where the three come to rest, the difference that one end did not apply, and the audit."""
    ledgers: dict[int, list[dict[str, Any]]] = {}
    c = cluster(
        GRAPH, Dadao(MU, L), Poisson(), initial=np.zeros((3, 4)), steps=STEPS, learner=descend,
        limits=Limits(chunk=16), ledgers=ledgers, follow=False, merge=False, **options,
    )  # fmt: skip
    missed = np.zeros(4)
    exchanges = c.workers[0].exchanges
    right, slots = exchanges.on_reply, c.workers[0].slots

    def without(
        chunk: int, time: float, difference: Array, mix: Array, intact: object, sign: float
    ) -> float:
        missed[:] = sign * difference
        return 0.0

    def forget(*given: Any) -> None:
        if not lose_one or missed.any() or c.now_s < 5.0:
            right(*given)
            return
        slots.add = without  # type: ignore[method-assign]
        right(*given)
        del slots.add

    exchanges.on_reply = forget  # type: ignore[method-assign]
    c.run(STEPS + 1.0)
    c.close()
    points = np.array([worker.slots.array[0] for worker in c.workers.values()])
    return points, missed, audit(ledgers)


def test_a_half_that_is_not_applied_moves_the_solution_by_what_is_predicted() -> None:
    points, missed, report = solve(lose_one=True)
    system = system_on(Dadao(MU, L), GRAPH)
    alpha, alpha_tilde = system.flow[4, 5], system.flow[5, 4]
    beta, beta_tilde = system.mix[4:]
    n_z = -missed * (alpha_tilde * beta + alpha * beta_tilde) / (alpha + alpha_tilde)
    predicted = (CURVATURE @ CENTRES - n_z) / CURVATURE.sum()
    bias = np.linalg.norm(predicted - OPTIMUM)
    assert bias > 1e-3
    np.testing.assert_allclose(points, [predicted] * 3, rtol=0, atol=1e-3 * bias)
    [culprit] = report.culprits
    assert "without effect at worker 0" in culprit.what


@pytest.mark.parametrize("faulty", [False, True])
def test_the_protocol_intact_leaves_none(faulty: bool) -> None:
    """Not even where messages are lost, repeated and held up; these faults end half-way."""
    faults = [lose(0.2, 0.0, 400.0), duplicate(0.2, 0.0, 400.0), cut(0, 1, 5.0, 2.0)]
    limits = {"faults": faults, "network": Network(GRAPH)} if faulty else {}
    points, _, report = solve(lose_one=False, **limits)
    np.testing.assert_allclose(points, [OPTIMUM] * 3, rtol=0, atol=1e-6)
    assert report.balanced
    assert report.off < report.bound < 1e-8
