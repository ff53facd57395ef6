"""How raw values become what a network sees, and back: pixels to [-1, 1], arrays to zero mean and unit variance.

Encodings are frozen values without behaviour-changing state; they are stored as JSON with every run, and decode samples
without the data. The encoding of tables stands in `columns`.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Array = NDArray[Any]
FloatArray = NDArray[np.float32]


class Frozen(BaseModel):
    """A value that is stored as JSON: immutable, no unknown fields, finite numbers only."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Pixels(Frozen):
    """Images: `x = (raw - low) / ((high - low) / 2) - 1`, channels last outside, channels first inside.

    For 8-bit images (low 0, high 255) this is x = raw / 127.5 - 1.
    """

    type: Literal["pixels"] = "pixels"
    low: float = 0.0
    high: float = 255.0

    def encode(self, raw: Array) -> FloatArray:
        """(B, H, W, C) in raw units -> (B, C, H, W) float32 in [-1, 1]."""
        half = np.float32((self.high - self.low) / 2)
        x = np.ascontiguousarray(np.moveaxis(raw, -1, 1)).astype(np.float32)
        x -= np.float32(self.low)
        x /= half
        x -= np.float32(1)
        return x

    def decode(self, x: Array) -> NDArray[np.uint8]:
        """(B, C, H, W) -> (B, H, W, C) uint8 for a screen or a file, whatever the raw units were; rounds and clips."""
        scaled = (np.moveaxis(np.asarray(x, np.float32), 1, -1) + np.float32(1)) * np.float32(127.5)
        return np.asarray(np.rint(np.clip(np.nan_to_num(scaled), 0, 255)), np.uint8)


class Standard(Frozen):
    """Vectors, sequences, arrays: `x = (raw - mean) / std`, one mean and std for each entry of axis 1.

    A constant entry has std 1 here, so that it becomes 0 and comes back exactly. Integers are exact up to about 2^20
    steps per standard deviation: float32 has no more.
    """

    type: Literal["standard"] = "standard"
    dtype: str
    mean: tuple[float, ...]
    std: tuple[float, ...] = Field(min_length=1)

    @cached_property
    def _scale(self) -> tuple[Array, Array]:
        return np.asarray(self.mean), np.asarray(self.std)

    def encode(self, raw: Array) -> FloatArray:
        """(B, C, *S) in raw units -> the same shape, float32, standardised."""
        mean, std = (along_channels(part, raw.ndim) for part in self._scale)
        return ((np.asarray(raw, np.float64) - mean) / std).astype(np.float32)

    def decode(self, x: Array) -> Array:
        """(B, C, *S) standardised -> the same shape in raw units and the raw dtype (integers rounded and clipped)."""
        mean, std = (along_channels(part, x.ndim) for part in self._scale)
        return to_dtype(np.asarray(x, np.float64) * std + mean, np.dtype(self.dtype))


def along_channels(values: Array, ndim: int) -> Array:
    """(C,) shaped to broadcast against axis 1 of an array with `ndim` axes."""
    return values.reshape((-1,) + (1,) * (ndim - 2))


def to_dtype(values: NDArray[np.float64], dtype: np.dtype[Any]) -> Array:
    """Float64 values in a dtype; integers are rounded and clipped to its range, never wrapped."""
    if dtype.kind == "b":
        return values > 0.5
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        # The largest int64 is no float64; the number just below the limit rounds to the limit for small types.
        inside = np.clip(np.nan_to_num(values), float(info.min), np.nextafter(float(info.max), 0))
        return np.rint(inside).astype(dtype)
    return values.astype(dtype)
