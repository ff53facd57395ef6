"""Grids and strips of pictures, pixel for pixel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from osmotic.data.whole import whole

Pictures = NDArray[np.uint8]
GAP = 2
MARGIN = 18
SIDE = 64
PAPER, INK = 255, 70


def enlarge(images: Pictures, side: int = SIDE) -> Pictures:
    """Pictures ``(N, H, W, C)`` repeated to about ``side`` pixels, every pixel a square; larger ones stay."""
    factor = max(1, round(side / max(images.shape[1:3])))
    return images.repeat(factor, 1).repeat(factor, 2)


def grid(images: Pictures, columns: int, rows: Sequence[str] = (), heads: Sequence[str] = ()) -> Image.Image:
    """Pictures ``(N, H, W, C)`` row by row, with a name before each row and above each column where given."""
    images = enlarge(images)
    n, height, width, channels = images.shape
    lines = -(-n // columns)
    left = MARGIN + 6 * max((len(name) for name in rows), default=0) if rows else GAP
    top = MARGIN if heads else GAP
    canvas = np.full((top + lines * (height + GAP), left + columns * (width + GAP), 3), PAPER, np.uint8)
    for i, image in enumerate(images):
        y, x = top + i // columns * (height + GAP), left + i % columns * (width + GAP)
        canvas[y : y + height, x : x + width] = image if channels == 3 else np.repeat(image, 3, -1)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for i, name in enumerate(rows):
        draw.text((4, top + i * (height + GAP) + height // 2 - 6), spaced(name), fill=(INK,) * 3)
    for i, name in enumerate(heads):
        draw.text((left + i * (width + GAP) + 2, 3), spaced(name), fill=(INK,) * 3)
    return picture


def spaced(name: str) -> str:
    """A name whose spaces can be seen: the built-in font's are a pixel wide."""
    return name.replace(" ", "  ")


def block(images: Pictures, rows: Sequence[str] = ()) -> Image.Image:
    """All pictures in one, about as wide as high: each name has equally many, on as many lines as that takes.

    Args:
        images: ``(N, H, W, C)``, those of the first name first.
        rows: the names; none for one block.
    """
    names = rows or ("",)
    each = len(images) // len(names)
    lines = max(1, round((each / len(names)) ** 0.5))
    columns = -(-each // lines)
    canvas = np.full((len(names), lines * columns, *images.shape[1:]), PAPER, np.uint8)
    canvas[:, :each] = images[: each * len(names)].reshape(len(names), each, *images.shape[1:])
    heads = [name if line == 0 else "" for name in rows for line in range(lines)]
    return grid(canvas.reshape(-1, *images.shape[1:]), columns, heads)


def save(picture: Any, path: Path) -> Path:
    """Write a PNG, complete or not at all; the folder is made."""
    with whole(path) as part:
        picture.save(part, format="PNG")
    return path
