"""The constants of the dynamics, at the rates that a worker really achieves.

η counts on the rates: momentum made for exchanges that do not happen overshoots and diverges. The
χ's are times, so at `pace` times the planned rates they are χ/pace. The pace is the achieved rate
over the nominal one, and up to twice less where an exchange takes as long as two of them are apart.
A codec that mixes a share of the values makes exchanges so much rarer for each of them.
"""

from __future__ import annotations

from decent.dynamics import Dynamics, System, system_on
from decent.topology import Topology
from decent.worker.clock import RateMeter
from decent.worker.slots import Slots

FOLLOW = 0.05
"""Relative change of the pace that is worth new constants."""


def system_at(dynamics: Dynamics, topology: Topology, pace: float) -> System:
    """The constants for `pace` times the rates of `topology`."""
    if pace == 1 or not getattr(dynamics, "uses_chi", True):
        return system_on(dynamics, topology)
    return dynamics.system(topology.chi_1 / pace, topology.chi_2 / pace)


class Momentum:
    """Keeps the system of `slots` at the pace that `meter` finds. `share` of the values is mixed by
    an exchange. Without `follows` the pace is the nominal one, as in the papers."""

    def __init__(
        self, dynamics: Dynamics, topology: Topology, slots: Slots, meter: RateMeter,
        share: float = 1.0, follows: bool = True,
    ) -> None:  # fmt: skip
        self.dynamics, self.topology, self.slots, self.meter = dynamics, topology, slots, meter
        self._share, self._follows, self.pace = share, follows, share

    def follow(self, time: float, delay: float) -> None:
        """Exchanges take `delay`, start to end, as of local `time`."""
        if not self._follows:
            return
        late = min(1.0, delay * self.meter.nominal / 2)
        pace = self._share * self.meter.ratio(time) / (1 + late)
        if abs(pace - self.pace) > FOLLOW * self.pace:
            self.pace = pace
            self.slots.system = system_at(self.dynamics, self.topology, pace)
