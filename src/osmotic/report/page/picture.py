"""Pictures inside a page: small enough, and never read from elsewhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from .html import Html, tag

WIDEST = 900
"""Pixels, which no page shows more of."""
MOST = 160_000
"""Bytes of one picture."""
TRIES = ((1.0, 85), (0.75, 80), (0.5, 75), (0.35, 60), (0.2, 50))
"""How a picture too large is written instead: its scale and its quality, until it is small enough."""


def inline(path: Path, alt: str) -> Html:
    """An ``<img>`` that carries its picture: as it is where that is small, else scaled down, and lossy if it must.

    Raises:
        ValueError: if the file is no picture.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be shown: it is no whole picture ({error}).") from None
    kind, data = _small(picture)
    return tag("img", src=address(kind, data), alt=alt, width=picture.width, height=picture.height)


def address(kind: str, data: bytes) -> str:
    """A picture's bytes as the ``data:`` address that carries them."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _small(picture: Image.Image) -> tuple[str, bytes]:
    """The format and the bytes of a picture within the limits."""
    if picture.width > WIDEST:
        picture = _scaled(picture, WIDEST / picture.width)
    data = _written(picture, "png")
    if len(data) <= MOST:
        return "png", data
    for scale, quality in TRIES:
        data = _written(_scaled(picture, scale), "jpeg", quality)
        if len(data) <= MOST:
            break
    return "jpeg", data


def _scaled(picture: Image.Image, factor: float) -> Image.Image:
    return picture.resize((max(1, round(picture.width * factor)), max(1, round(picture.height * factor))))


def _written(picture: Image.Image, kind: str, quality: int | None = None) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, optimize=True, **({} if quality is None else {"quality": quality}))
    return file.getvalue()
