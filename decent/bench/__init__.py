"""Measurements that print medians and ratios against the alternative in the same run."""

from decent.bench.gossip import bench_gossip

__all__ = ["bench_gossip"]
