"""Signs of life that measure the way: each asks to be sent back what it says.

They travel on a connection of their own (see `transport.zeromq`), so they wait behind no payload,
and tell how long the way there and back is, with the queues that others make on it.
"""

from __future__ import annotations

from decent.worker import messages as m
from decent.worker.context import Context
from decent.worker.peers import Peer


def feel(context: Context, peer: Peer, now_s: float) -> None:
    """A sign of life to `peer`, which is to answer at once."""
    context.send(peer.id, m.Beat, asked_s=now_s, answer=True)


def felt(context: Context, peer: Peer, beat: m.Beat, now_s: float) -> None:
    """Answer the peer's, or take its answer to ours as a measurement."""
    if beat.answer:
        context.send(peer.id, m.Beat, asked_s=beat.asked_s)
    elif 0 <= now_s - beat.asked_s <= context.limits.dead_s:
        peer.pulse.measure(now_s - beat.asked_s)
        assert peer.pulse.mean_s is not None
        context.stats.round_trips_s[str(peer.id)] = round(peer.pulse.mean_s, 6)
