"""How long a peer takes to answer, and hence how long to wait before it is asked again.

    first sample R     mean ← R,   deviation ← R/2
    further ones       deviation ← ¾·deviation + ¼·|mean − R|,   mean ← ⅞·mean + ⅛·R
    pause              mean + max(least, ½·mean, 4·deviation)
    … after a rest     COLD · the least sample more, at most `most`

as TCP does it (RFC 6298), but for ½·mean: chunks can be so large that one more in a queue is far
beyond the deviation. An answer says which asking it is to (as in RFC 7323), so that every one is a
sample, also where a chunk was asked for more than once. What is asked for in vain is asked for
again after twice the pause before, up to a limit: the peer shows signs of life all the while, so it
is bad luck and no congestion, which would show in the samples. Seconds.
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

    def measure(self, sample_s: float) -> None:
        """It took so long to be answered."""
        sample_s = max(0.0, sample_s)
        self.least_s = min(self.least_s, sample_s)
        if self.mean_s is None:
            self.mean_s, self.deviation_s = sample_s, sample_s / 2
        else:
            self.deviation_s += (abs(self.mean_s - sample_s) - self.deviation_s) / 4
            self.mean_s += (sample_s - self.mean_s) / 8

    def pause_s(self, limits: Limits, cold: bool = False) -> float:
        """How long to wait for an answer; on a connection that may be `cold`, longer."""
        mean_s = self.mean_s or 0.0
        pause_s = mean_s + max(limits.retry_least_s, mean_s / 2, 4 * self.deviation_s)
        if cold and self.least_s < math.inf:
            pause_s += min(limits.retry_most_s, COLD * self.least_s)
        return pause_s

    def double(self, pause_s: float, limits: Limits) -> float:
        """How long to wait next, where waiting `pause_s` was in vain."""
        return min(2 * pause_s, max(limits.retry_most_s, self.pause_s(limits)))
