"""Codecs: the values of a chunk as they are, or in fewer bytes. numpy only.

    exact   the values as they are
    fp32    single precision: the same for a model in float32
    bf16    the upper half of single precision, to nearest, ties to even: relative error ≤ 2⁻⁹
    fp16    half precision: relative error ≤ 2⁻¹¹ from 6·10⁻⁵ to 65,504, nothing beyond
    int8    blocks of `block` values as round(v/s), s = max|v|/127: error ≤ s/2
    topk    of each chunk the `share` that has changed most since it was last mixed; see `topk`

bf16 is what processors' bfloat16 instructions give, by shifts; int8 with a scale to a block is the
block-wise quantization of Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (ICLR
2022), with even steps.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from decent.errors import ConfigError
from decent.worker.codec import Array, Codec
from decent.worker.topk import TopK

NAN = 0x7FC0  # of bf16
LEAST = float(np.finfo(np.float32).tiny)


class Single(Codec):
    """IEEE single precision."""

    name = "fp32"

    def _nbytes(self, size: int) -> int:
        return 4 * size

    def _encode(self, values: Array) -> Array:
        return values.astype(np.float32).view(np.uint8)

    def _decode(self, payload: Array, size: int) -> Array:
        return payload.view(np.float32)


class Brain(Codec):
    """bfloat16: sign, 8 bits of exponent, 7 of mantissa."""

    name = "bf16"

    def _nbytes(self, size: int) -> int:
        return 2 * size

    def _encode(self, values: Array) -> Array:
        single = np.ascontiguousarray(values, np.float32)
        bits = single.view(np.uint32)
        rounded = bits >> 16
        rounded &= 1
        rounded += 0x7FFF
        rounded += bits
        rounded >>= 16
        halves = rounded.astype(np.uint16)
        if not np.isfinite(np.dot(single, single)):  # rounding may carry a NaN over into a number
            halves[np.isnan(single)] = NAN
        return halves.view(np.uint8)

    def _decode(self, payload: Array, size: int) -> Array:
        bits = payload.view(np.uint16).astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)


class Half(Codec):
    """IEEE half precision. Values beyond 65,504 become infinite, and are not mixed."""

    name = "fp16"

    def _nbytes(self, size: int) -> int:
        return 2 * size

    def _encode(self, values: Array) -> Array:
        return values.astype(np.float16).view(np.uint8)

    def _decode(self, payload: Array, size: int) -> Array:
        return payload.view(np.float16)


@dataclass(frozen=True)
class Int8(Codec):
    """Scales s (float32), one to a block of `block` values, then the values' multiples of them."""

    block: int = 256
    name = "int8"

    def __post_init__(self) -> None:
        if not 1 <= self.block <= 2**20:
            raise ConfigError(f"block = {self.block}", "1 … 1,048,576 values to a scale")

    def _blocks(self, size: int) -> int:
        return -(-size // self.block)

    def _nbytes(self, size: int) -> int:
        return 4 * self._blocks(size) + size

    def _in_blocks(self, values: Array) -> Array:
        """[blocks, block] float32; the last one filled up with 0."""
        count = self._blocks(values.size)
        if values.size == count * self.block:
            return values.astype(np.float32, copy=False).reshape(count, self.block)
        filled = np.zeros((count, self.block), np.float32)
        filled.ravel()[: values.size] = values
        return filled

    def _encode(self, values: Array) -> Array:
        blocks = self._in_blocks(values)
        scales = np.abs(blocks).max(axis=1)
        scales /= 127
        scales[scales < LEAST] = 0
        inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
        levels = np.rint(blocks * inverse[:, np.newaxis]).astype(np.int8)
        return np.concatenate([scales.view(np.uint8), levels.ravel()[: values.size].view(np.uint8)])

    def _decode(self, payload: Array, size: int) -> Array:
        scales = payload[: 4 * self._blocks(size)].view(np.float32)
        blocks = self._in_blocks(payload[4 * self._blocks(size) :].view(np.int8))
        return (blocks * scales[:, np.newaxis]).ravel()[:size]


CODECS: dict[str, type[Codec]] = {
    kind.name: kind for kind in (Codec, Single, Brain, Half, Int8, TopK)
}


def get(codec: str, **options: Any) -> Codec:
    """The one of that name; of `options` it takes those that it has."""
    if codec not in CODECS:
        raise ConfigError(f"codec {codec!r}", f"one of {', '.join(CODECS)}")
    kind = CODECS[codec]
    return kind(**{each.name: options[each.name] for each in fields(kind) if each.name in options})
