"""A modelled network in virtual time: latency, bandwidth, jitter, loss, damage, faults on request.

A message of B bytes from i to j leaves when the link is free, takes B/bandwidth to send and the
link's latency to arrive. Signs of life have a connection of their own and do not queue. Every
random choice is drawn from a stream named by the link, so a run is the same to the bit for the same
seed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from decent.schedule import stream
from decent.topology import Link, Topology
from decent.worker import Packet
from decent.worker.messages import Beat, checksum

HEADER_BYTES = 100
"""What a header weighs on the wire, about."""


@dataclass
class Network:
    """The links between workers; pairs that are not edges get `default`."""

    topology: Topology
    default: Link = field(default_factory=lambda: Link(0.0))
    seed: int = 0
    jitter: float = 0.0  # standard deviation of the logarithm of the latency
    loss: float = 0.0  # share of messages lost
    duplicate: float = 0.0  # share of messages that come twice
    corrupt: float = 0.0  # share of payloads of which a bit is flipped
    cut: set[frozenset[int]] = field(default_factory=set)  # links that carry nothing
    bytes_carried: int = 0
    _free_s: dict[tuple[int, int], float] = field(default_factory=dict)
    _streams: dict[tuple[int, int], np.random.Generator] = field(default_factory=dict)

    def arrivals(self, packet: Packet, now_s: float) -> list[float]:
        """When `packet` arrives, in seconds: once, or never, or twice."""
        pair = packet.message.src, packet.message.dst
        rng = self._stream(pair)
        sent_s = self._sent(pair, packet, now_s)
        copies = 1 + (rng.random() < self.duplicate) if self.duplicate else 1
        if frozenset(pair) in self.cut or (self.loss and rng.random() < self.loss):
            copies -= 1
        return [sent_s + self._latency(pair, rng) for _ in range(copies)]

    def carried(self, packet: Packet) -> Packet:
        """What of `packet` arrives: all of it, or with a bit of its payload flipped."""
        if not self.corrupt or packet.payload is None:
            return packet
        rng = self._stream((packet.message.src, packet.message.dst))
        if rng.random() >= self.corrupt:
            return packet
        payload = packet.payload.copy()
        payload.view(np.uint8)[rng.integers(payload.nbytes)] ^= 1 << rng.integers(8)
        return packet._replace(payload=payload, check=packet.check or checksum(packet.payload))

    def link(self, pair: tuple[int, int]) -> Link:
        index = self.topology.edge_index.get((min(pair), max(pair)))
        if self.topology.links is None or index is None:
            return self.default
        return self.topology.links[index]

    def _sent(self, pair: tuple[int, int], packet: Packet, now_s: float) -> float:
        """When the last byte is on the way; packets of a link queue up."""
        size = packet.nbytes + HEADER_BYTES
        self.bytes_carried += size
        bandwidth = self.link(pair).bandwidth_bps
        if bandwidth is None:
            return now_s
        if isinstance(packet.message, Beat):
            return now_s + 8 * size / bandwidth
        start_s = max(now_s, self._free_s.get(pair, 0.0))
        self._free_s[pair] = start_s + 8 * size / bandwidth
        return self._free_s[pair]

    def _latency(self, pair: tuple[int, int], rng: np.random.Generator) -> float:
        latency_s = self.link(pair).latency_s
        return latency_s * float(np.exp(self.jitter * rng.normal())) if self.jitter else latency_s

    def _stream(self, pair: tuple[int, int]) -> np.random.Generator:
        if pair not in self._streams:
            self._streams[pair] = stream(self.seed, "link", *pair)
        return self._streams[pair]
