"""A number with its sampling error: by resampling, or by leaving out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[..., float]


@dataclass(frozen=True)
class Interval:
    """A value, and the interval in which it would lie with other samples from the same laws.

    Args:
        value: what was measured.
        low: lower end, at 95 % unless said otherwise.
        high: upper end.
    """

    value: float
    low: float
    high: float


def around(value: float, error: float, freedom: float = math.inf, level: float = 0.95) -> Interval:
    """Student's interval around a value.

    ``value +- t error`` with t the quantile of Student's law at ``(1 + level) / 2``.

    Args:
        value: an estimate with nearly normal error.
        error: its standard error.
        freedom: degrees of freedom from which the error was estimated; infinite where it is known.
        level: the share of such intervals that hold the truth, in (0, 1).
    """
    from scipy.special import ndtri, stdtrit

    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies in (0, 1); got {level}.")
    at = (1 + level) / 2
    t = float(ndtri(at) if math.isinf(freedom) else stdtrit(freedom, at))
    return Interval(float(value), float(value - t * error), float(value + t * error))


def bootstrap(statistic: Statistic, *sets: ArrayLike, draws: int = 200, seed: int = 0, level: float = 0.95) -> Interval:
    """The interval of a statistic by resampling every set with replacement.

    The basic bootstrap with its shift taken out: with ``d = statistic(resampled) - mean of these``, the interval is
    ``[value - quantile_high(d), value - quantile_low(d)]`` (Davison & Hinkley 1997, "Bootstrap methods and their
    application", section 5.2). A biased statistic, such as a Frechet distance, is biased once more by resampling; the
    shift is dropped, so that the interval is about the statistic's mean *at these numbers of samples* and holds its
    own value. Compare such numbers at equal counts, or take the bias away first (:func:`frechet_infinite`).

    Resampling makes copies. Statistics of nearest neighbours and others that copies mislead belong in
    :func:`jackknife`.

    Args:
        statistic: ``(*sets) -> float``.
        sets: arrays ``(N, ...)``, resampled along the first axis independently of each other. What belongs together,
            such as samples and their labels, is handed over as one array.
        draws: of each set, at least 2.
        seed: of the resampling.
        level: in (0, 1).

    Raises:
        ValueError: for no sets, sets of fewer than 2 samples, and numbers out of range.
    """
    arrays = _checked(sets, 2)
    if draws < 2:
        raise ValueError(f"A bootstrap needs at least 2 draws; got {draws}.")
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies in (0, 1); got {level}.")
    value = float(statistic(*arrays))
    rng = np.random.default_rng(seed)
    found = np.array([statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(draws)])
    below, above = np.quantile(found - found.mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(value - above), float(value - below))


def jackknife(statistic: Statistic, *sets: ArrayLike, blocks: int = 20, seed: int = 0, level: float = 0.95) -> Interval:
    """The interval of a statistic by leaving out a random block of one set at a time.

    ``error^2 = sum over sets of (B - 1) / B sum_b (v_b - mean v)^2`` with ``v_b`` the statistic without block b, and
    Student's interval with B - 1 degrees of freedom (Efron & Stein 1981, "The jackknife estimate of variance"). No
    sample is ever repeated, so that it also fits precision, recall, density and coverage.

    Args:
        statistic: ``(*sets) -> float``, of the mean of many samples' kind: not a median.
        sets: arrays ``(N, ...)``, independent of each other; rows belong together.
        blocks: B, at least 2; every set holds as many samples at least.
        seed: of the partition.
        level: in (0, 1).

    Raises:
        ValueError: for no sets, sets of fewer samples than blocks, and numbers out of range.
    """
    if blocks < 2:
        raise ValueError(f"A jackknife needs at least 2 blocks; got {blocks}.")
    arrays = _checked(sets, blocks)
    value = float(statistic(*arrays))
    rng = np.random.default_rng(seed)
    variance = 0.0
    for i, array in enumerate(arrays):
        parts = np.array_split(rng.permutation(len(array)), blocks)
        without = [statistic(*arrays[:i], np.delete(array, part, axis=0), *arrays[i + 1 :]) for part in parts]
        variance += (blocks - 1) * float(np.var(without))
    return around(value, math.sqrt(variance), blocks - 1, level)


def _checked(sets: tuple[ArrayLike, ...], least: int) -> list[NDArray[Any]]:
    arrays = [np.asarray(s) for s in sets]
    if not arrays:
        raise ValueError("No sets were given, so there is nothing to resample.")
    for number, array in enumerate(arrays, 1):
        if array.ndim == 0 or len(array) < least:
            raise ValueError(f"Set {number} needs at least {least} samples in rows; got shape {array.shape}.")
    return arrays
