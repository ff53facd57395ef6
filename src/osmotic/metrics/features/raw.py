"""Features that are the values themselves."""

from __future__ import annotations

import numpy as np

from .base import ROOM, Array, Features, check_images, evenly
from .standard import Standard


class Raw(Features):
    """The values of a sample, flattened, each standardised by its mean and deviation in the training data.

    For vectors, tables and sequences. Values that never change in the training data stay in their own unit.

    Args:
        standard: mean and scale of each value; `Raw.fitted` takes them from the training data.
    """

    name = "standardised values"

    def __init__(self, standard: Standard) -> None:
        self.standard = standard
        self.dimensions = len(standard.mean)

    @classmethod
    def fitted(cls, training: Array) -> Raw:
        """Standardised by training samples ``(N, ...)``."""
        if len(training) == 0:
            raise ValueError("Standardised values need training samples, and there are none: give one at least.")
        return cls(Standard.fitted(_flat(evenly(training)), rounding=1e-12))

    def _check(self, x: Array) -> None:
        if np.prod(x.shape[1:], dtype=int) != self.dimensions:
            raise ValueError(
                f"Samples of shape {x.shape[1:]} do not have the {self.dimensions} values of the training data: "
                "give samples of the same kind."
            )

    def _batch(self, shape: tuple[int, ...]) -> int:
        return ROOM // 2 // max(1, self.dimensions)

    def _block(self, x: Array) -> Array:
        return self.standard(_flat(x))


class Pixels(Features):
    """The pixels of an image, flattened, in [0, 1].

    Args:
        shape: ``(H, W, C)`` of one image.
    """

    name = "pixels"

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = tuple(shape)
        self.dimensions = int(np.prod(shape))

    def _check(self, x: Array) -> None:
        check_images(x)
        if x.shape[1:] != self.shape:
            raise ValueError(f"Images of shape {x.shape[1:]} do not fit those of shape {self.shape}: resize them.")

    def _batch(self, shape: tuple[int, ...]) -> int:
        return ROOM // 2 // self.dimensions

    def _block(self, x: Array) -> Array:
        return x.reshape(len(x), -1) / 255


def _flat(x: Array) -> Array:
    if x.dtype.kind not in "biuf":
        raise ValueError(f"Samples of type {x.dtype} are no numbers: encode them first.")
    rows = x.reshape(len(x), -1).astype(np.float64)
    bad = int((~np.isfinite(rows)).any(1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(rows)} samples hold NaN or infinite values: leave them out, and say so.")
    return rows
