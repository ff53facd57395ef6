"""One picture file: opened, turned upright, brought to 8 bits of grey or RGB, resized. Bad files say why.

What naive reading gets wrong is handled here: a JPEG cut short passes Pillow's `verify` and is only found by decoding;
`convert("RGB")` clips 16-bit pixels to white; transparent pixels hide arbitrary colours; the EXIF turn is not applied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from .sizes import Size

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 80_000_000  # below the size at which Pillow itself warns of a decompression bomb
ORIENTATION = 0x0112  # the EXIF tag
WAITING = 64  # files handed to the thread pool at a time: decoded pictures wait in memory

GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L")
Pixels8 = NDArray[np.uint8]
Item = TypeVar("Item")
Result = TypeVar("Result")


class BadPicture(Exception):
    """A file that cannot be used; the text is the reason."""


class Look(NamedTuple):
    """What a file says of itself: upright size, Pillow's mode, whether it is grey, has alpha, 16 bits, a turn."""

    width: int
    height: int
    mode: str
    grey: bool
    alpha: bool
    deep: bool
    turned: bool


def look(path: Path) -> Look:
    """Header of a picture; raises BadPicture with the reason."""
    with _opened(path) as image:
        return _look(image)


def pixels(path: Path, size: int | Size | None = None) -> Pixels8:
    """Decoded picture, (H, W) when grey and (H, W, 3) otherwise; raises BadPicture with the reason.

    Turned as EXIF says, alpha composed on white, 16 bits scaled to 8. With `size`, it is scaled to cover that side or
    that height and width (Lanczos, antialiased) and the middle is cut out.
    """
    with _opened(path) as image:
        seen = _look(image)
        image.load()
        upright = ImageOps.exif_transpose(image)
        flat = _eight_bits(upright, seen)
        return np.asarray(flat if size is None else _fitted(flat, size if isinstance(size, tuple) else (size, size)))


def decode_all(paths: Sequence[Path], sizes: Sequence[Size] | None, what: str) -> Iterator[Pixels8 | BadPicture]:
    """Every picture in order, decoded by threads, or the reason why it is bad; shows progress after two seconds.

    `sizes`: what each is brought to, None to leave them as they are.
    """

    def attempt(item: tuple[Path, Size | None]) -> Pixels8 | BadPicture:
        try:
            return pixels(*item)
        except BadPicture as error:
            return error

    each: Sequence[Size | None] = [None] * len(paths) if sizes is None else sizes
    return in_threads(attempt, [*zip(paths, each, strict=True)], what)


def look_all(paths: Sequence[Path], what: str) -> Iterator[Look | BadPicture]:
    """Every header in order, or the reason why it is bad; shows progress after two seconds."""

    def attempt(path: Path) -> Look | BadPicture:
        try:
            return look(path)
        except BadPicture as error:
            return error

    return in_threads(attempt, paths, what)


def in_threads(work: Callable[[Item], Result], items: Sequence[Item], what: str | None = None) -> Iterator[Result]:
    """Results in order; Pillow decodes without the interpreter lock. `what` titles a progress bar."""
    bar: Iterable[Item] = items if what is None else tqdm(items, desc=what, unit="file", delay=2, leave=False)
    queue = iter(bar)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while waiting := list(islice(queue, WAITING)):
            yield from pool.map(work, waiting)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An opened picture; whatever goes wrong while it is used becomes BadPicture."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadPicture(f"{image.width} x {image.height} pixels are more than the limit of {MAX_PIXELS:,}")
            yield image
    except BadPicture:
        raise
    except Exception as error:  # decoders raise what they like: OSError, SyntaxError, struct.error, ...
        raise BadPicture(_reason(error, path)) from error


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file: check the path"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if path.stat().st_size == 0 else "not a picture, whatever its name says"
    if isinstance(error, Image.DecompressionBombError):
        return f"more pixels than the limit of {MAX_PIXELS:,}"
    text = " ".join(str(error).split()) or type(error).__name__
    return f"cut short ({text})" if "truncated" in text.lower() else f"does not decode ({text[:100]})"


def _look(image: Image.Image) -> Look:
    turn = image.getexif().get(ORIENTATION, 1)
    width, height = image.size if turn not in (5, 6, 7, 8) else image.size[::-1]
    return Look(
        width,
        height,
        mode=image.mode,
        grey=image.mode in GREY_MODES,
        alpha="A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info,
        deep=image.mode in DEEP_MODES,
        turned=turn in range(2, 9),
    )


def _eight_bits(image: Image.Image, seen: Look) -> Image.Image:
    """Mode L or RGB with nothing hidden and nothing clipped."""
    if seen.deep:
        values = np.asarray(image, np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise BadPicture("pixels beyond 16 bits: store such data as .npy")
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise BadPicture("floating-point pixels: store such data as .npy")
    if seen.alpha:
        coloured = image.convert("RGBA")
        white = Image.new("RGBA", coloured.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, coloured)
    return image.convert("L" if seen.grey else "RGB")


def _fitted(image: Image.Image, size: Size) -> Image.Image:
    target = size[::-1]
    scale = max(least / side for least, side in zip(target, image.size, strict=True))
    width, height = (max(least, round(side * scale)) for least, side in zip(target, image.size, strict=True))
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - target[0]) // 2, (height - target[1]) // 2
    return image.crop((left, top, left + target[0], top + target[1]))


def as_channels(picture: Pixels8, channels: int) -> Pixels8:
    """(H, W) or (H, W, 3) -> (H, W, channels); grey is repeated into RGB."""
    deep: NDArray[Any] = picture if picture.ndim == 3 else picture[..., None]
    return np.broadcast_to(deep, (*deep.shape[:2], channels))
