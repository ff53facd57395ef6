"""Columns of mean 0 and standard deviation 1, by what the training data say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Array, Vectors


@dataclass(frozen=True)
class Standard:
    """``z = (x - mean) / scale`` for each column.

    Args:
        mean: ``(D,)``.
        scale: ``(D,)``, positive.
    """

    mean: Vectors
    scale: Vectors

    @classmethod
    def fitted(cls, x: Array, rounding: float) -> Standard:
        """Mean and standard deviation of the columns of ``(N, D)``.

        A column whose deviation is within `rounding` of its size is a constant, and keeps its own unit: divided by its
        rounding errors it would drown all others.
        """
        mean, deviation = x.mean(0, np.float64), x.std(0, np.float64)
        constant = deviation <= rounding * np.abs(x).max(0)
        return cls(mean, np.where(constant, 1.0, deviation))

    def __call__(self, x: Array) -> Vectors:
        """Columns ``(B, D)`` in standard units, float64."""
        return (x - self.mean) / self.scale
