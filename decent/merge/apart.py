"""No merge: every worker ends with the model that it has trained itself.

For workers that have nothing to do with each other, such as those that train one expert each of a
decentralized diffusion model (McAllister et al., arXiv 2501.05450). As nothing is exchanged either,
such workers need no communicator, and none of them notices how the others fare.
"""

from __future__ import annotations

from typing import ClassVar

from decent.errors import ConfigError
from decent.schedule import Never, Schedule


class Apart:
    """Every worker keeps its own: the weight of a mean of one."""

    name: ClassVar[str] = "apart"

    def weight(self, samples: int) -> float:
        return 1.0


def kept_apart(merge: object, schedule: Schedule) -> bool:
    """Whether workers have nothing to do with each other. Raises ConfigError where they exchange
    and are not to be merged."""
    if isinstance(merge, Apart) and not isinstance(schedule, Never):
        raise ConfigError(
            f"merge {merge.name!r} with a schedule of exchanges", "the schedule 'never'",
            'set schedule = "never", or merge = "mean"',
        )  # fmt: skip
    return isinstance(merge, Apart)
