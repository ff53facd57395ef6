"""Tables of samples against real tables: each column, each pair of columns, and what can be learned from the rows."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from osmotic.metrics.interval import Interval, bootstrap
from osmotic.metrics.sets import Set, as_labels, as_pair, as_set
from osmotic.metrics.threads import threads_for


def column_distances(real: ArrayLike, samples: ArrayLike, categorical: ArrayLike) -> Set:
    """How far each column's law is from the real one, ``(D,)`` in [0, 1].

    Kolmogorov and Smirnov's ``max_x |F(x) - G(x)|`` for numbers, the total variation ``1/2 sum_c |p_c - q_c|`` for
    categories. Finite sets of the same law are about ``1 / sqrt(N)`` apart.

    Args:
        real: ``(N, D)``, categories as numbers of any values.
        samples: ``(M, D)``.
        categorical: ``(D,)``, true for columns of categories.

    Raises:
        ValueError: for sets that are empty, not finite or of different widths, and a mask of another length.
    """
    x, y = as_pair(real, samples, ("real rows", "samples"), 1)
    mask = _mask(categorical, x.shape[1])
    pairs = zip(mask, x.T, y.T, strict=True)
    return np.array([_total_variation(a, b) if c else _kolmogorov_smirnov(a, b) for c, a, b in pairs])


def associations(x: ArrayLike, categorical: ArrayLike) -> Set:
    """How strongly each pair of columns goes together, ``(D, D)``, symmetric with 1 on the diagonal.

    Pearson's correlation in [-1, 1] between numbers; Cramer's V ``(chi^2 / (N (min(rows, columns) - 1)))^1/2`` in
    [0, 1] between categories; between both the correlation ratio, the root of the variance of the categories' means
    over the variance, in [0, 1]. A constant column goes with nothing: 0.

    Args:
        x: ``(N, D)``.
        categorical: ``(D,)``, true for columns of categories.
    """
    rows = as_set(x, "rows")
    mask = _mask(categorical, rows.shape[1])
    found, constant = np.eye(len(mask)), np.ptp(rows, axis=0) == 0
    for i in range(len(mask)):
        for j in range(i):
            a, b = rows[:, i], rows[:, j]
            if constant[i] or constant[j]:
                value = 0.0  # decided on the numbers: their mean's rounding would look like movement
            elif mask[i] and mask[j]:
                value = _cramer(a, b)
            elif mask[i] or mask[j]:
                value = _correlation_ratio(*((a, b) if mask[i] else (b, a)))
            else:
                value = _pearson(a, b)
            found[i, j] = found[j, i] = value
    return found


def correlation_gap(real: ArrayLike, samples: ArrayLike, categorical: ArrayLike) -> float:
    """The mean absolute difference of the two tables' :func:`associations` over pairs of columns; 0 for one column.

    Finite sets of the same law are about ``1 / sqrt(N)`` apart.
    """
    x, y = as_pair(real, samples, ("real rows", "samples"))
    pairs = np.tril_indices(x.shape[1], -1)
    gaps = np.abs(associations(x, categorical) - associations(y, categorical))[pairs]
    return float(gaps.mean()) if len(gaps) else 0.0


class Task(Protocol):
    """What is learned from a table: a learner, and a score of its answers. Classification or Regression."""

    def learner(self, seed: int) -> Any:
        """A scikit-learn estimator that was not fitted yet."""

    def score(self, truth: Set, answers: Set) -> float:
        """Higher is better, 1 is perfect."""


class Classification:
    """Targets are classes, the score is accuracy in [0, 1]."""

    def learner(self, seed: int) -> Any:
        """Gradient-boosted trees."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(random_state=seed)

    def score(self, truth: Set, answers: Set) -> float:
        """The share of right answers."""
        return float((truth == answers).mean())


class Regression:
    """Targets are numbers, the score is ``R^2 = 1 - sum (y - f)^2 / sum (y - mean)^2``, at most 1."""

    def learner(self, seed: int) -> Any:
        """Gradient-boosted trees."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        return HistGradientBoostingRegressor(random_state=seed)

    def score(self, truth: Set, answers: Set) -> float:
        """R^2; 0 for targets without variance."""
        if np.ptp(truth) == 0:
            return 0.0
        return float(1 - ((truth - answers) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def train_on_synthetic(
    samples: ArrayLike,
    targets: ArrayLike,
    real: ArrayLike,
    real_targets: ArrayLike,
    task: Task,
    *,
    seed: int = 0,
) -> Interval:
    """Train on samples, test on real data.

    Esteban et al. 2017 (arXiv 1706.02633). Gradient-boosted trees on all columns as numbers; the interval is of the
    choice of test rows, by :func:`bootstrap`. Put other real rows, as many, in place of the samples for what a perfect
    model gets; test on rows that the model was not trained on.

    Args:
        samples: ``(N, D)`` without the target's column.
        targets: ``(N,)`` numbers or numbered classes.
        real: ``(M, D)``.
        real_targets: ``(M,)``.
        task: ``Classification()`` or ``Regression()``.
        seed: of the learner and the resampling.

    Raises:
        ValueError: for sets that are too small, not finite or of different widths, and targets of other counts.
    """
    x, y = as_pair(samples, real, ("samples", "real rows"))
    of_x, of_y = as_labels(targets, len(x), "targets"), as_labels(real_targets, len(y), "real targets")
    wanted = as_set(of_y, "real targets")[:, 0]
    as_set(of_x, "targets")
    answers = _answers(task, x, of_x, y, seed)
    return bootstrap(lambda rows: task.score(rows[:, 0], rows[:, 1]), np.stack([wanted, answers], 1), seed=seed)


def _answers(task: Task, rows: Set, targets: NDArray[Any], asked: Set, seed: int) -> Set:
    if len(np.unique(targets)) == 1:
        return np.full(len(asked), float(targets[0]))  # what a learner would say, did scikit-learn's not refuse
    with threads_for(len(rows)):
        return np.asarray(task.learner(seed).fit(rows, targets).predict(asked), np.float64)


def _mask(categorical: ArrayLike, width: int) -> NDArray[np.bool_]:
    mask = np.asarray(categorical)
    if mask.shape != (width,) or mask.dtype != bool:
        raise ValueError(f"The mask of categories must be {width} booleans; got {mask.dtype} of shape {mask.shape}.")
    return mask


def _kolmogorov_smirnov(a: Set, b: Set) -> float:
    at = np.concatenate([a, b])
    shares = [np.searchsorted(np.sort(s), at, "right") / len(s) for s in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _total_variation(a: Set, b: Set) -> float:
    values, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    p, q = (np.bincount(i, minlength=len(values)) / len(i) for i in (index[: len(a)], index[len(a) :]))
    return float(np.abs(p - q).sum() / 2)


def _pearson(a: Set, b: Set) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / scale)


def _cramer(a: Set, b: Set) -> float:
    rows, columns = (np.unique(s, return_inverse=True)[1] for s in (a, b))
    counts = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(counts, (rows, columns), 1)
    least = min(counts.shape) - 1
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / len(a)
    return float(np.sqrt(((counts - expected) ** 2 / expected).sum() / (len(a) * least)))


def _correlation_ratio(categories: Set, numbers: Set) -> float:
    index = np.unique(categories, return_inverse=True)[1]
    numbers = numbers - numbers.mean()
    counts = np.bincount(index)
    means = np.bincount(index, numbers) / counts
    return float(np.sqrt(counts @ means**2 / (numbers**2).sum()))
