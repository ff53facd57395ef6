"""Can a classifier tell samples from real data? It should not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.interval import Interval, around
from osmotic.metrics.sets import Set, as_pair
from osmotic.metrics.threads import threads_for

FEW = 100
"""Up to so many columns trees are grown on each; more are features, told apart by a linear rule."""


@dataclass(frozen=True)
class TwoSample:
    """How well samples are told from real data, on rows that the classifier did not see.

    Args:
        accuracy: the mean of the shares recognised in either set; 1/2 where they cannot be told apart, 1 where they
            always can.
        auc: the probability that a sample looks more like a sample than a real one does; likewise.
    """

    accuracy: Interval
    auc: Interval


def two_sample(samples: ArrayLike, real: ArrayLike, *, folds: int = 5, seed: int = 0) -> TwoSample:
    """The classifier two-sample test by cross-validation.

    Lopez-Paz & Oquab 2017 (arXiv 1610.06545). Gradient-boosted trees up to 100 columns, a logistic regression on more.
    Use real data that the model was not trained on. It also sees what people do not, such as values between whole
    numbers where real data have none. The intervals, of the folds' classifiers as they are, take
    binomial errors for the accuracy and those of DeLong et al. 1988 ("Comparing the areas under two or more
    correlated receiver operating characteristic curves") for the area.

    Args:
        samples: ``(N, ...)``, at least two per fold.
        real: ``(M, ...)`` of the same width, at least two per fold. The counts may differ; both sets weigh the same.
        folds: at least 2.
        seed: of the folds.

    Raises:
        ValueError: for sets that are too small, not finite or of different widths, and for fewer than 2 folds.
    """
    if folds < 2:
        raise ValueError(f"Cross-validation needs at least 2 folds; got {folds}.")
    x, y = as_pair(samples, real, ("samples", "real data"), 2 * folds)
    rng = np.random.default_rng(seed)
    right: tuple[list[Set], list[Set]] = ([], [])
    above: tuple[list[Set], list[Set]] = ([], [])
    parts = [np.array_split(rng.permutation(len(s)), folds) for s in (x, y)]
    for i, j in zip(*parts, strict=True):
        rule = _fitted(np.delete(x, i, 0), np.delete(y, j, 0), seed)
        # Both sets weigh the same, whatever their counts: probabilities by Bayes' rule at even odds.
        odds = (len(x) - len(i)) / (len(y) - len(j))
        of_x, of_y = (_at_even_odds(rule.predict_proba(s)[:, 1], odds) for s in (x[i], y[j]))
        # A tie is half recognised: a rule without an opinion has an accuracy of 1/2.
        right[0].append((of_x > 0.5) + 0.5 * (of_x == 0.5))
        right[1].append((of_y < 0.5) + 0.5 * (of_y == 0.5))
        above[0].append(_share_below(of_x, of_y))
        above[1].append(1 - _share_below(of_y, of_x))
    # Both columns of `above` have the area as their mean, each with one set's share of its error; those of `right` have
    # one set's accuracy each.
    return TwoSample(_mean(right, 0.5), _mean(above, 1.0))


def _at_even_odds(p: Set, odds: float) -> Set:
    """A probability found at these odds of the two classes, were they equally frequent."""
    even: Set = p / (p + odds * (1 - p))
    return even


def _fitted(x: Set, y: Set, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, labels = np.concatenate([x, y]), np.repeat([1, 0], [len(x), len(y)])
    if x.shape[1] <= FEW:
        # Small trees on coarse bins tell laws apart as well as scikit-learn's own, in a fifth of the time.
        rule: Any = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, max_bins=64, random_state=seed)
    else:
        # Features can be as many as rows: shrunk strongly, a linear rule still finds what all rows share.
        rule = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    with threads_for(len(rows)):
        return rule.fit(rows, labels)


def _share_below(a: Set, b: Set) -> Set:
    """For each number of a the share of b below it, ties counted by half."""
    ordered = np.sort(b)
    shares: Set = (np.searchsorted(ordered, a, "left") + np.searchsorted(ordered, a, "right")) / (2 * len(b))
    return shares


def _mean(scores: tuple[list[Set], list[Set]], factor: float) -> Interval:
    """The mean over both sets, its error being ``factor`` times that of the sum of their means."""
    one, two = (np.concatenate(s) for s in scores)
    # Rows that all agree still leave an error of about one row.
    error = np.sqrt(sum(max(float(s.var(ddof=1)), 1 / len(s)) / len(s) for s in (one, two)))
    found = around((one.mean() + two.mean()) / 2, factor * error)
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0))
