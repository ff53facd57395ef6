"""Images that a model may be told beside a picture: made of it (edges, its low resolution), or given with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, get_args

import numpy as np
from pydantic import Field

from .encoding import FloatArray, Frozen

Made = Literal["edges", "grey", "blocks"]
MADE: tuple[str, ...] = get_args(Made)


class Beside(Frozen):
    """An image that the data hold beside each picture, of the same height and width: what it was before, or its mask.

    Args:
        name: of the column, or the array, that it stands in.
        channels: 1 for grey, 3 for RGB.
    """

    name: str
    channels: Literal[1, 3]


class Low(Frozen):
    """The picture's low resolution, means over blocks, each repeated over its block: what super-resolution is told.

    With it goes a number, :data:`LEVEL`: how much noise has been put over it, a time in [0, 1], 0 for none.

    Args:
        factor: side of the blocks in pixels; the picture's sides are its multiples.
    """

    factor: Annotated[int, Field(ge=2)]


Control = Made | Beside | Low

LEVEL = "noise of image"
"""The name of that number among what a model is told, just before the text."""

LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue, ITU-R BT.601
STRONG = 0.5  # slope of luma, whose range is 2, over two pixels from which there is an edge
BLOCK = 4


def edges(x: FloatArray) -> FloatArray:
    """1 where the neighbours on both sides of a pixel differ by half of luma's range or more, else 0: ``(B, 1, H, W)``.

    Left and right or above and below, whichever differ more; at the rim the pixel itself stands for the neighbour that
    is not there, and half the difference is enough.
    """
    light = grey(x)[:, 0].astype(np.float64)
    across, down = (np.abs(np.gradient(light, axis=axis)) for axis in (2, 1))
    return np.asarray(np.maximum(across, down) >= STRONG, np.float32)[:, None]


def grey(x: FloatArray) -> FloatArray:
    """The luma of red, green and blue (ITU-R BT.601), ``(B, 1, H, W)``; a grey picture itself."""
    if x.shape[1] != 3:
        return x[:, :1].astype(np.float32)
    return np.asarray(np.einsum("bchw,c->bhw", x, LUMA.astype(np.float32))[:, None], np.float32)


def blocks(x: FloatArray, side: int = BLOCK) -> FloatArray:
    """The mean over blocks of 4 x 4 pixels, or another side (those at the far rim may be smaller), ``(B, C, H, W)``."""
    found = x.astype(np.float64)
    for axis in (2, 3):
        starts = np.arange(0, x.shape[axis], side)
        sizes = np.diff([*starts, x.shape[axis]])
        shape = [-1 if a == axis else 1 for a in range(4)]
        found = np.add.reduceat(found, starts, axis) / sizes.reshape(shape)
        found = np.repeat(found, sizes, axis)
    return found.astype(np.float32)


def made(control: Made | Low, x: FloatArray) -> FloatArray:
    """What a control that is made of pictures ``(B, C, H, W)`` shows of them, ``(B, channels, H, W)``."""
    return blocks(x, control.factor) if isinstance(control, Low) else CONTROLS[control](x)


CONTROLS: dict[Made, Callable[[FloatArray], FloatArray]] = {"edges": edges, "grey": grey, "blocks": blocks}


def channels(control: Control, shape: tuple[int, ...]) -> int:
    """How many channels a control of pictures ``(C, H, W)`` has."""
    if isinstance(control, Beside):
        return control.channels
    return shape[0] if control == "blocks" or isinstance(control, Low) else 1
