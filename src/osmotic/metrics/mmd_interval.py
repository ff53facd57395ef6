"""The error of a kernel distance from one pass over the pairs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmotic.metrics.interval import Interval, around
from osmotic.metrics.kernel import Kernel
from osmotic.metrics.sets import Set, as_pair

SOME = 1000
"""Samples from which the error at equal laws is found."""


def mmd_interval(
    x: ArrayLike, y: ArrayLike, kernel: Kernel, *, blocks: int = 20, seed: int = 0, level: float = 0.95
) -> Interval:
    """:func:`~osmotic.metrics.mmd` with its interval, at the cost of two of them.

    Of laws that differ the error is that of :func:`~osmotic.metrics.jackknife`, for which the kernel's sums over pairs
    of blocks are enough: what leaves with a block are its row and its column of them. Of equal laws the distance has no
    linear part, which is all that leaving out sees; its variance is then ``2 (1/(n(n-1)) + 1/(m(m-1)) + 2/(nm)) E
    h(z, z')^2`` with h the kernel centred over both sets (Gretton et al. 2012, "A kernel two-sample test", theorem 12
    and appendix B). The larger of the two errors is taken.

    Args:
        x: ``(N, ...)``, at least two samples in each block.
        y: ``(M, ...)`` of the same width, likewise.
        kernel: such as ``Polynomial()``.
        blocks: of either set, at least 2.
        seed: of the partition.
        level: in (0, 1).

    Raises:
        ValueError: for sets that are too small, not finite or of different widths.
    """
    if blocks < 2:
        raise ValueError(f"A jackknife needs at least 2 blocks; got {blocks}.")
    x, y = as_pair(x, y, least=2 * blocks)
    rng = np.random.default_rng(seed)
    xs, ys = (np.array_split(rng.permutation(len(rows)), blocks) for rows in (x, y))
    xx, yy, xy = _sums(x, xs, x, xs, kernel), _sums(y, ys, y, ys, kernel), _sums(x, xs, y, ys, kernel)
    n, m = (np.array([len(part) for part in parts]) for parts in (xs, ys))
    own_x, own_y = _own(x, xs, kernel), _own(y, ys, kernel)
    within_x, within_y = _within(xx.sum(), own_x.sum(), n.sum()), _within(yy.sum(), own_y.sum(), m.sum())
    value = within_x + within_y - 2 * xy.sum() / (n.sum() * m.sum())
    without_x = _without(xx, own_x, n) + within_y - 2 * (xy.sum() - xy.sum(1)) / ((n.sum() - n) * m.sum())
    without_y = within_x + _without(yy, own_y, m) - 2 * (xy.sum() - xy.sum(0)) / (n.sum() * (m.sum() - m))
    variance = (blocks - 1) * float(np.var(without_x) + np.var(without_y))
    spread = 2 * (1 / (len(x) * (len(x) - 1)) + 1 / (len(y) * (len(y) - 1)) + 2 / (len(x) * len(y)))
    equal = spread * _centred_square(np.concatenate([x, y])[rng.permutation(len(x) + len(y))[:SOME]], kernel)
    return around(float(value), math.sqrt(max(variance, equal)), blocks - 1, level)


def _centred_square(z: Set, kernel: Kernel) -> float:
    """The mean over pairs of different samples of the square of the kernel, centred over the samples."""
    values = kernel(z, z)
    values = values - values.mean(0) - values.mean(1)[:, None] + values.mean()
    np.fill_diagonal(values, 0)
    return float((values**2).sum() / (len(z) * (len(z) - 1)))


def _sums(x: Set, xs: list[NDArray[np.int64]], y: Set, ys: list[NDArray[np.int64]], kernel: Kernel) -> Set:
    """Of the kernel over each pair of blocks."""
    return np.array([[float(kernel(x[a], y[b]).sum()) for b in ys] for a in xs])


def _own(x: Set, xs: list[NDArray[np.int64]], kernel: Kernel) -> Set:
    """Of the kernel of each sample with itself, by blocks."""
    return np.array([float(np.trace(kernel(x[a], x[a]))) for a in xs])


def _within(total: Set, own: Set, count: Set) -> Set:
    """The mean over ordered pairs of two different samples."""
    mean: Set = (total - own) / (count * (count - 1))
    return mean


def _without(sums: Set, own: Set, counts: Set) -> Set:
    """The same without each block."""
    total = sums.sum() - 2 * sums.sum(1) + np.diag(sums)
    return _within(total, own.sum() - own, counts.sum() - counts)
