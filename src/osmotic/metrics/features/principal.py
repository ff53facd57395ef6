"""Fewer features: the directions in which the training data vary most."""

from __future__ import annotations

import numpy as np

from .base import Array, Features, Vectors, evenly

# Samples and numbers that a fit looks at: it takes a second, and 256 MB.
SAMPLES = 2048
NUMBERS = 1 << 25


class Principal(Features):
    """Other features projected on principal axes of the training data: ``z = (f - mean) axes``.

    Args:
        features: what is projected.
        mean: ``(D,)`` of them over the training data.
        axes: ``(D, K)``, orthonormal columns; `Principal.fitted` takes both from the training data.
    """

    def __init__(self, features: Features, mean: Vectors, axes: Vectors) -> None:
        self.features = features
        self.mean = mean
        self.axes = axes
        self.dimensions = axes.shape[1]
        self.name = f"{self.dimensions} principal components of {features.name}"

    @classmethod
    def fitted(cls, features: Features, training: Array, components: int = 64) -> Principal:
        """The axes of largest variance; fewer than `components` where the data have fewer.

        Looks at 2048 training samples at most, fewer of those with more than 16,384 features.
        """
        if len(training) < 2:
            raise ValueError(f"Principal components need 2 training samples at least, not {len(training)}.")
        count = max(2, min(SAMPLES, NUMBERS // features.dimensions))
        f = features(evenly(training, count))
        mean = f.mean(0)
        f -= mean
        return cls(features, mean, _axes(f, components))

    def _check(self, x: Array) -> None:
        self.features._check(x)

    def _batch(self, shape: tuple[int, ...]) -> int:
        return self.features._batch(shape)

    def _block(self, x: Array) -> Array:
        return (np.asarray(self.features._block(x), np.float64) - self.mean) @ self.axes


def _axes(centred: Vectors, components: int) -> Vectors:
    """The first right singular vectors of ``(N, D)``, through the smaller of the two Gram matrices.

    Each vector's largest entry is positive, so that the axes do not depend on the machine.
    """
    wide = centred.shape[1] > len(centred)
    values, vectors = np.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
    kept = values[::-1][:components] > 1e-12 * max(values[-1], np.finfo(float).tiny)
    axes = vectors[:, ::-1][:, : len(kept)][:, kept]
    if not kept.any():
        raise ValueError("The training samples are all alike and have no principal components: use the values.")
    if wide:
        axes = centred.T @ axes
        axes /= np.linalg.norm(axes, axis=0)
    largest = np.abs(axes).argmax(0)
    return np.asarray(axes * np.sign(axes[largest, np.arange(axes.shape[1])]), np.float64)
