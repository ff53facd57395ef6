"""Euclidean distances between sets, a block of rows at a time so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from osmotic.metrics.sets import Set

BUDGET = 2**22
"""Entries of one block of distances: 32 MB."""


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of rows so that each, against all columns, has at most BUDGET entries."""
    size = max(1, BUDGET // max(columns, 1))
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def squared(x: Set, y: Set) -> Set:
    """``|x_i - y_j|^2``, ``(N, M)``, by the expanded square.

    The expansion cannot tell a distance from 0 below about 1e-6 of the samples' length; there it is exactly 0, so that
    copies are copies whatever the order of summation.
    """
    norms = (x**2).sum(1)[:, None] + (y**2).sum(1)
    gaps: Set = norms - 2 * (x @ y.T)
    gaps[gaps < 1e-12 * norms] = 0.0
    return gaps


def nearest_index(x: Set, y: Set) -> NDArray[np.int64]:
    """The number of the row of y that is nearest to each row of x, ``(N,)``."""
    index = np.empty(len(x), np.int64)
    norms = (y**2).sum(1)
    for rows in blocks(len(x), len(y)):
        index[rows] = (norms - 2 * x[rows] @ y.T).argmin(1)
    return index


def neighbour_distances(x: Set, k: int) -> Set:
    """Squared distances of each row to its k nearest other rows, increasing, ``(N, k)``; k is below N."""
    found = np.empty((len(x), k))
    for rows in blocks(len(x), len(x)):
        gaps = squared(x[rows], x)
        gaps[np.arange(len(gaps)), np.arange(rows.start, rows.stop)] = np.inf
        found[rows] = np.sort(np.partition(gaps, k - 1, axis=1)[:, :k], axis=1)
    return found
