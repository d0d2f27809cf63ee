"""Samples as one picture: a grid of images, written as PNG."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from decent.errors import ConfigError
from decent.folder import write_atomic

GAP = 1  # pixels between images
SEEN = 56  # as high as an image is written, at least


def grid(x: Tensor, columns: int | None = None) -> Tensor:
    """Images [N, (C,) H, W] in [−1, 1] as one of bytes [H', W', C], C 1 or 3, near square unless
    `columns` says otherwise. Values beyond are clipped. Raises ConfigError for other shapes."""
    if x.dim() == 3:
        x = x[:, None]
    if x.dim() != 4 or x.shape[1] not in (1, 3) or len(x) == 0:
        raise ConfigError(
            f"samples {tuple(x.shape)}", "images [N, H, W] or [N, 1 or 3, H, W]",
            "write others as .safetensors",
        )  # fmt: skip
    across = columns or math.ceil(math.sqrt(len(x)))
    down = math.ceil(len(x) / across)
    _, channels, height, width = x.shape
    page = torch.full((down * across, channels, height + GAP, width + GAP), 255, dtype=torch.uint8)
    page[: len(x), :, :height, :width] = ((x.float().clamp(-1, 1) + 1) * 127.5).round().byte().cpu()
    page = page.reshape(down, across, channels, height + GAP, width + GAP)
    page = page.permute(0, 3, 1, 4, 2).reshape(down * (height + GAP), -1, channels)
    return page[:-GAP, :-GAP]


def save(x: Tensor, path: Path, columns: int | None = None) -> None:
    """The grid of `x` as PNG at `path`, whole or not at all; small images are enlarged, by a whole
    number."""
    from PIL import Image, ImageOps

    page = grid(x, columns).numpy()
    image = Image.fromarray(page[..., 0] if page.shape[-1] == 1 else page)
    image = ImageOps.scale(image, math.ceil(SEEN / x.shape[-2]), Image.Resampling.NEAREST)
    data = BytesIO()
    image.save(data, format="PNG")
    write_atomic(path, data.getvalue())
