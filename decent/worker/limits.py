"""Bounds on everything a worker waits for, keeps or sends."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Seconds unless the name says otherwise."""

    chunk: int = 131_072
    """values in a chunk: 512 KiB of float32 stay in a core's cache while they are mixed"""
    window: int = 64
    """chunks of one exchange in flight, at most: the link decides (see `window`), and the responder
    remembers so many replies"""
    window_least: int = 2
    """… and at least: one on its way there, one on its way back"""
    merge_window: int = 4
    """chunks under way with each peer of a merge, or of what one that comes back is shown"""
    max_open: int = 4
    """exchanges a worker may have started and not completed, over all edges"""
    bandwidth: float = math.inf
    """bytes of payload a second that leave a worker, over all edges"""
    beat_s: float = 0.5
    """between two signs of life on an edge"""
    silent_s: float = 3.0
    """silence after which a peer is no longer contacted (until it is heard again)"""
    dead_s: float = 15.0
    """silence after which a peer counts as dead"""
    start_s: float = 60.0
    """how long a peer may take to appear at all"""
    retry_s: float = 1.0
    """before the merge asks for anything again"""
    retry_least_s: float = 0.25
    """beyond the mean round trip, before a chunk is asked for again; doubles at each attempt"""
    retry_most_s: float = 8.0
    """before a chunk is asked for again, at most, unless answers take longer"""
