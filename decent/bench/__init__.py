"""Measurements that print medians and ratios against the alternative in the same run."""

from decent.bench.exchange import bench_exchange
from decent.bench.gossip import bench_gossip
from decent.bench.simulate import bench_simulate
from decent.bench.soak import bench_soak

__all__ = ["bench_exchange", "bench_gossip", "bench_simulate", "bench_soak"]
