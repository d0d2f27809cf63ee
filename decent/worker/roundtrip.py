"""How long a peer takes to answer, and hence how long to wait before it is asked again.

    first sample R     mean ← R,   deviation ← R/2
    further ones       deviation ← ¾·deviation + ¼·|mean − R|,   mean ← ⅞·mean + ⅛·R
    pause              mean + max(least, ½·mean, 4·deviation), at most `most`
    … after a rest     COLD · the least sample more

as TCP does it (RFC 6298), but for ½·mean: chunks can be so large that one more in a queue is far
beyond the deviation. The answer to what was said twice is no sample, since it may be to
either (Karn's rule): a pause that had to be doubled holds until the next sample. Seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from decent.worker.limits import Limits

COLD = 10
"""round trips that TCP may need, after a rest, until a chunk is through each way: what it sends in
one doubles, from some 14 KiB on"""


@dataclass
class RoundTrip:
    """To one peer and back, as measured; `mean_s` is None until it has answered once."""

    mean_s: float | None = None
    deviation_s: float = 0.0
    least_s: float = math.inf
    _doubled_s: float = 0.0

    def measure(self, sample_s: float) -> None:
        """It took so long to be answered."""
        sample_s = max(0.0, sample_s)
        self.least_s = min(self.least_s, sample_s)
        if self.mean_s is None:
            self.mean_s, self.deviation_s = sample_s, sample_s / 2
        else:
            self.deviation_s += (abs(self.mean_s - sample_s) - self.deviation_s) / 4
            self.mean_s += (sample_s - self.mean_s) / 8
        self._doubled_s = 0.0

    def pause_s(self, limits: Limits, cold: bool = False) -> float:
        """How long to wait for an answer; on a connection that may be `cold`, longer."""
        mean_s = self.mean_s or 0.0
        pause_s = mean_s + max(limits.retry_least_s, mean_s / 2, 4 * self.deviation_s)
        if cold and self.least_s < math.inf:
            pause_s += COLD * self.least_s
        return min(limits.retry_most_s, max(pause_s, self._doubled_s))

    def double(self, pause_s: float, limits: Limits) -> float:
        """How long to wait next, where waiting `pause_s` was in vain."""
        pause_s = min(limits.retry_most_s, 2 * pause_s)
        self._doubled_s = max(self._doubled_s, pause_s)
        return pause_s
