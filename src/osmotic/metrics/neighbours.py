"""Nearest training samples: is a model repeating what it saw?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmotic.metrics.distances import nearest_index, neighbour_distances
from osmotic.metrics.sets import as_pair


@dataclass(frozen=True)
class Neighbours:
    """For each sample, which training sample is nearest and how far it is.

    Args:
        index: ``(N,)`` numbers of the nearest training samples.
        distance: ``(N,)`` Euclidean distances, in the units of the data.
    """

    index: NDArray[np.int64]
    distance: NDArray[np.float64]


@dataclass(frozen=True)
class Ratios:
    """Distances to the training set in units of what is usual for real data that were held out.

    Args:
        samples: ``(N,)``, the samples' distances over the held-out data's median; 0 for copies.
        held_out: ``(M,)``, the held-out data's own, of median 1: the histogram to lay beside it.
    """

    samples: NDArray[np.float64]
    held_out: NDArray[np.float64]


def nearest(samples: ArrayLike, training: ArrayLike) -> Neighbours:
    """The nearest training sample of each sample, by brute force in blocks.

    Args:
        samples: ``(N, ...)``.
        training: ``(M, ...)`` of the same shape per sample.

    Raises:
        ValueError: for no samples, samples that are not finite, and different widths.
    """
    x, y = as_pair(samples, training, ("samples", "training data"), least=1)
    index = nearest_index(x, y)
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


def distance_ratios(samples: ArrayLike, held_out: ArrayLike, training: ArrayLike) -> Ratios:
    """How far samples and held-out data lie from the training set, over the held-out data's median distance.

    The two histograms agree for fresh draws; a heap near 0 that held-out data lack is memory.

    Raises:
        ValueError: also where half of the held-out data are copies of training data.
    """
    usual = nearest(held_out, training).distance
    unit = float(np.median(usual))
    if not unit:
        raise ValueError("At least half of the held-out data are in the training set; split them anew, without copies.")
    return Ratios(nearest(samples, training).distance / unit, usual / unit)


def authentic(samples: ArrayLike, training: ArrayLike) -> NDArray[np.bool_]:
    """Which samples are no near-copy of a training sample, ``(N,)``; :func:`authenticity` is their share.

    A sample is unauthentic if it lies nearer to its nearest training sample than that one to its own nearest other
    (Alaa et al. 2022, arXiv 2102.08921). Fresh draws from the data's law do not reach 1, as two points are often each
    other's nearest: on the line they reach 1/3, in the plane 0.38, in many dimensions 1/2. 0 for copies, also for those
    of a training sample that is there twice.

    Args:
        samples: ``(N, ...)``.
        training: ``(M, ...)``, at least 2.

    Raises:
        ValueError: for too few samples, samples that are not finite, and different widths.
    """
    x, y = as_pair(samples, training, ("samples", "training data"), least=1)
    if len(y) < 2:
        raise ValueError("Authenticity needs at least 2 training samples; got 1.")
    found = nearest(x, y)
    gaps = np.sqrt(neighbour_distances(y, 1)[found.index, 0])
    fresh: NDArray[np.bool_] = (found.distance >= gaps) & (found.distance > 0)
    return fresh


def authenticity(samples: ArrayLike, training: ArrayLike) -> float:
    """The share of samples that are :func:`authentic`, in [0, 1]."""
    return float(authentic(samples, training).mean())
