"""Distances between sets by a kernel, unbiased at any number of samples: KID, CMMD's kind, the energy distance."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.distances import squared
from osmotic.metrics.interval import Interval, around
from osmotic.metrics.sets import Set, as_pair, as_set

BLOCK = 2048  # rows and columns of a block of the kernel's matrix: 32 MB


class Kernel(ABC):
    """A symmetric function of two samples. A new kernel is one class with one method."""

    @abstractmethod
    def __call__(self, x: Set, y: Set) -> Set:
        """``k(x_i, y_j)``, ``(N, D)`` and ``(M, D)`` to ``(N, M)``."""


@dataclass(frozen=True)
class Polynomial(Kernel):
    """``(x . y / D + 1)^degree``, the kernel of KID with its degree of 3.

    Binkowski et al. 2018 (arXiv 1801.01401). It sees moments up to its degree only.
    """

    degree: int = 3

    def __call__(self, x: Set, y: Set) -> Set:
        values: Set = (x @ y.T / x.shape[1] + 1) ** self.degree
        return values


@dataclass(frozen=True)
class GaussianKernel(Kernel):
    """``exp(-|x - y|^2 / (2 scale^2))``, which sees every difference between laws.

    The kernel of CMMD, on CLIP's features with a scale of 10 (Jayasumana et al. 2024, arXiv 2401.09603; their
    number counts pairs of a sample with itself and is multiplied by 1000).

    Args:
        scale: in the units of the features, positive; :func:`median_scale` finds one.
    """

    scale: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise ValueError(f"The scale of a Gaussian kernel is positive and finite; got {self.scale}.")

    def __call__(self, x: Set, y: Set) -> Set:
        values: Set = np.exp(squared(x, y) / (-2 * self.scale**2))
        return values


@dataclass(frozen=True)
class NegativeDistance(Kernel):
    """``-|x - y|``, the kernel of the energy distance (Sejdinovic et al. 2013, arXiv 1207.6076)."""

    def __call__(self, x: Set, y: Set) -> Set:
        values: Set = -np.sqrt(squared(x, y))
        return values


def median_scale(x: ArrayLike, *, count: int = 1000, seed: int = 0) -> float:
    """The median distance between two samples of a set, the usual scale of a Gaussian kernel.

    Take it from real data, once, so that all models are measured with the same kernel (Gretton et al. 2012, "A kernel
    two-sample test").

    Args:
        x: ``(N, ...)``.
        count: samples that are looked at, drawn without replacement.
        seed: of that draw.

    Raises:
        ValueError: also where more than half of the pairs are copies.
    """
    x = as_set(x, "samples")
    some = np.random.default_rng(seed).permutation(len(x))[:count]
    gaps = squared(x[some], x[some])
    scale = float(np.sqrt(np.median(gaps[np.triu_indices(len(gaps), 1)])))
    if not scale:
        raise ValueError("The median distance is 0: more than half of the pairs are copies; give the scale yourself.")
    return scale


def mmd(x: ArrayLike, y: ArrayLike, kernel: Kernel) -> float:
    """The squared maximum mean discrepancy, unbiased.

    ``mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean k(x_i, y_j)`` (Gretton et al. 2012). Its mean is
    0 for equal laws, so that it can be negative. Memory does not grow with the number of samples.

    Args:
        x: ``(N, ...)``, at least 2.
        y: ``(M, ...)`` of the same width.
        kernel: such as ``Polynomial()``.

    Raises:
        ValueError: for sets that are too small, not finite or of different widths.
    """
    return _mmd(*as_pair(x, y), kernel)


def kid(
    x: ArrayLike,
    reference: ArrayLike,
    kernel: Kernel | None = None,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int = 0,
) -> Interval:
    """The kernel distance as it is published: the mean of :func:`mmd` over random subsets of both sets.

    Binkowski et al. 2018 (arXiv 1801.01401). With s the deviation among subsets and f = size / N the share of the
    smaller set in each, the error is ``s sqrt(f / (1 - f) + 1 / subsets)``: s^2 falls as 1/size at the slowest, and
    subsets that overlap differ less than independent ones, by ``1 - f``.

    Args:
        x: ``(N, ...)`` features of samples, at least 4.
        reference: ``(M, ...)`` features of real data.
        kernel: ``Polynomial()`` by default.
        subsets: how many, at least 2.
        size: samples in each, at least 2; at most half of the smaller set is used. The mean does not depend on it.
        seed: of the subsets.

    Raises:
        ValueError: for sets that are too small, not finite or of different widths, and for numbers out of range.
    """
    x, y = as_pair(x, reference, least=4)
    if subsets < 2 or size < 2:
        raise ValueError(f"At least 2 subsets of at least 2 samples are needed; got {subsets} of {size}.")
    fewest = min(len(x), len(y))
    size = min(size, fewest // 2)
    rng = np.random.default_rng(seed)
    kernel = kernel or Polynomial()
    found = [
        _mmd(x[rng.choice(len(x), size, replace=False)], y[rng.choice(len(y), size, replace=False)], kernel)
        for _ in range(subsets)
    ]
    share = size / fewest
    error = np.std(found, ddof=1) * np.sqrt(share / (1 - share) + 1 / subsets)
    return around(float(np.mean(found)), float(error))


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """The squared energy distance, unbiased, in the units of the data.

    ``2 E|x - y| - E|x - x'| - E|y - y'|`` over pairs of different samples (Szekely & Rizzo 2013, "Energy statistics").
    0 on average for equal laws, and only for these.
    """
    return mmd(x, y, NegativeDistance())


def mean_within(x: Set, kernel: Kernel) -> float:
    """The mean of the kernel over ordered pairs of two different samples of a set."""
    return (_total(x, x, kernel) - _trace(x, kernel)) / (len(x) * (len(x) - 1))


def _mmd(x: Set, y: Set, kernel: Kernel) -> float:
    return mean_within(x, kernel) + mean_within(y, kernel) - 2 * _total(x, y, kernel) / (len(x) * len(y))


def _total(x: Set, y: Set, kernel: Kernel) -> float:
    return sum(
        float(kernel(x[i : i + BLOCK], y[j : j + BLOCK]).sum())
        for i in range(0, len(x), BLOCK)
        for j in range(0, len(y), BLOCK)
    )


def _trace(x: Set, kernel: Kernel) -> float:
    # Small squares, only their diagonals being wanted; the rows' own numbers must be those of the total above.
    return sum(float(np.trace(kernel(x[i : i + 64], x[i : i + 64]))) for i in range(0, len(x), 64))
