"""What a driver may offer for peers on the same machine; this offers nothing.

`transport.shared` does: payloads are written where the peer can read them, and a peer that can see
the live parameters themselves is not even sent a copy of them.
"""

from __future__ import annotations

import numpy as np

from decent.worker.slots import Array


class Near:
    """No peer is near."""

    def sees(self, peer: int) -> bool:
        """Whether the peer can read this worker's live values where they stand."""
        return False

    def forget(self, peer: int) -> None:
        """The peer is another process now."""

    def memory(self, peer: int, answer: bool, chunk: int, nbytes: int) -> Array:
        """[nbytes] uint8, for what is to be sent of `chunk`: it may be used again when a window's
        worth of chunks further is sent to that peer."""
        return np.empty(nbytes, np.uint8)
