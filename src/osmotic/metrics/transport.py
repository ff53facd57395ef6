"""How far mass must move: the Wasserstein-2 distance on a line, and its mean over random lines."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.sets import Set, as_pair

BATCH = 64  # lines at a time


def wasserstein(x: ArrayLike, y: ArrayLike) -> float:
    """The Wasserstein-2 distance of two sets of numbers, exactly.

    ``(int_0^1 (F^-1(u) - G^-1(u))^2 du)^1/2`` of the two empirical laws, of any counts, in the units of the data.

    Args:
        x: ``(N,)``.
        y: ``(M,)``.

    Raises:
        ValueError: for sets that are empty, not finite or have more than one column.
    """
    x, y = as_pair(x, y, least=1)
    if x.shape[1] != 1:
        raise ValueError(f"The distance on a line is of single numbers; got {x.shape[1]} columns: use sliced.")
    return float(np.sqrt(_squares(x, y)[0]))


def sliced(x: ArrayLike, reference: ArrayLike, *, projections: int = 512, seed: int = 0) -> float:
    """The sliced Wasserstein-2 distance: the root mean square of :func:`wasserstein` over random directions.

    ``(E_theta W2(theta . x, theta . y)^2)^1/2``, theta uniform on the unit sphere (Bonneel et al. 2015, "Sliced and
    Radon Wasserstein barycenters of measures"). Finite sets of the same law are at a distance above 0 that falls
    as one over the root of their counts: compare at equal ones.

    Args:
        x: ``(N, ...)``.
        reference: ``(M, ...)`` of the same width.
        projections: directions, at least 1; their error falls as one over the root of their number.
        seed: of the directions. One seed measures all models along the same ones.

    Raises:
        ValueError: for sets that are empty, not finite or of different widths.
    """
    x, y = as_pair(x, reference, least=1)
    if projections < 1:
        raise ValueError(f"At least one direction is needed; got {projections}.")
    directions = np.random.default_rng(seed).normal(size=(x.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    lines = [directions[:, i : i + BATCH] for i in range(0, projections, BATCH)]
    return float(np.sqrt(np.concatenate([_squares(x @ line, y @ line) for line in lines]).mean()))


def _squares(x: Set, y: Set) -> Set:
    """Squared W2 of each column, ``(N, P)`` and ``(M, P)`` to ``(P,)``."""
    n, m = len(x), len(y)
    x, y = np.sort(x, axis=0), np.sort(y, axis=0)
    # Both quantile functions are steps; between two ends of steps, counted in units of 1 / (n m), both are constant.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    squares: Set = widths @ (x[(ends - 1) // m] - y[(ends - 1) // n]) ** 2
    return squares
