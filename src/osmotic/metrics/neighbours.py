"""Nearest training samples: is a model repeating what it saw?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK = 1024


@dataclass(frozen=True)
class Neighbours:
    """For each sample, which training sample is nearest and how far it is.

    Args:
        index: ``(N,)`` numbers of the nearest training samples.
        distance: ``(N,)`` Euclidean distances, in the units of the data.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


def nearest(samples: ArrayLike, training: ArrayLike) -> Neighbours:
    """The nearest training sample of each sample, by brute force in blocks.

    Args:
        samples: ``(N, ...)``.
        training: ``(M, ...)`` of the same shape per sample.
    """
    x, y = (np.asarray(a, np.float64).reshape(len(np.asarray(a)), -1) for a in (samples, training))
    norms = (y**2).sum(1)
    index = np.empty(len(x), np.int64)
    for start in range(0, len(x), BLOCK):
        block = x[start : start + BLOCK]
        index[start : start + BLOCK] = (norms - 2 * block @ y.T).argmin(1)
    # The distance itself is taken from the difference: the expanded square loses digits where it matters most, near 0.
    return Neighbours(index, np.sqrt(((x - y[index]) ** 2).sum(1)))


def share_closer(samples: ArrayLike, held_out: ArrayLike, training: ArrayLike) -> float:
    """The share of samples closer to the training set than the median held-out real sample is.

    1/2 for fresh draws from the data's law, up to sampling error; 1 for copies.

    Returns:
        A share in [0, 1].
    """
    baseline = float(np.median(nearest(held_out, training).distance))
    return float(np.mean(nearest(samples, training).distance < baseline))
