"""What a measure sees of a sample: a vector of numbers, and the name of what they are."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Array = NDArray[Any]
Vectors = NDArray[np.float64]

# Numbers that one batch may hold while it is worked on: 64 MB of float32.
ROOM = 1 << 24
# Training samples that a fit looks at: more change its third digit at most.
FIT = 10_000


class Features(abc.ABC):
    """A map from samples ``(N, ...)`` to vectors ``(N, dimensions)``, one sample at a time in effect.

    Images are ``(N, H, W, 1 or 3)`` uint8, other data ``(N, ...)`` numbers. `name` says what the features are: a
    distance between them means nothing without it.
    """

    name: str
    dimensions: int
    # What scores are called on these features, where the field has a name for that: (score, its name) pairs.
    usual_names: Mapping[str, str] = MappingProxyType({})

    def __call__(self, x: Array, progress: str | None = None) -> Vectors:
        """Features of samples, ``(N, dimensions)`` float64; memory beyond the result does not grow with N.

        Args:
            x: samples, in memory or mapped from a file.
            progress: title of a bar that is shown after two seconds; None for no bar.
        """
        found = np.empty((len(x), self.dimensions))
        at = 0
        for block in self.blocks(x, progress):
            found[at : at + len(block)] = block
            at += len(block)
        return found

    def blocks(self, x: Array, progress: str | None = None) -> Iterator[Vectors]:
        """The same in consecutive blocks ``(B, dimensions)``: moments of any number of samples in constant memory."""
        self._check(x)
        size = max(1, min(len(x), self._batch(x.shape[1:])))
        starts = range(0, len(x), size)
        bar = starts if progress is None else tqdm(starts, desc=progress, unit="batch", delay=2, leave=False)
        for start in bar:
            yield np.asarray(self._block(np.asarray(x[start : start + size])), np.float64)

    @abc.abstractmethod
    def _check(self, x: Array) -> None:
        """Raises ValueError for samples that these features cannot read."""

    @abc.abstractmethod
    def _batch(self, shape: tuple[int, ...]) -> int:
        """How many samples of a shape are worked on at once; the result must not depend on it."""

    @abc.abstractmethod
    def _block(self, x: Array) -> Array:
        """Features of one batch, ``(B, dimensions)``."""


def check_images(x: Array, side: int = 1) -> None:
    """Raises ValueError unless x is ``(N, H, W, 1 or 3)`` uint8 with sides of `side` pixels at least."""
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise ValueError(f"Images for features are (N, H, W, 1 or 3) uint8, not {x.shape} {x.dtype}: convert them.")
    if min(x.shape[1:3]) < side:
        raise ValueError(f"Images of {x.shape[1]} x {x.shape[2]} pixels are too small: give {side} x {side} at least.")


def evenly(x: Array, count: int = FIT) -> Array:
    """At most `count` samples of x, spread evenly over it: a sorted data set is seen whole."""
    if len(x) <= count:
        return np.asarray(x)
    return np.asarray(x[np.linspace(0, len(x) - 1, count).astype(np.int64)])
