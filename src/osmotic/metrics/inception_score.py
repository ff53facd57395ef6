"""The Inception score: are samples of clear classes, and of all classes?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.interval import Interval, around
from osmotic.metrics.sets import as_set


def inception_score(probabilities: ArrayLike, splits: int = 10, *, seed: int = 0) -> Interval:
    """``exp(E KL(p(y|x) || p(y)))``: 1 where all samples get one answer, K for K sure and equally frequent classes.

    Salimans et al. 2016 (arXiv 1606.03498): the mean over splits, each with its own p(y). Samples are shuffled first:
    sorted by class, each split would look like a single class. It looks at no real data and does not see copies
    within a class.

    Args:
        probabilities: ``(N, K)`` of a classifier, rows that sum to 1.
        splits: equal parts, at least 1. The score grows with the number of samples in a part.
        seed: of the shuffling.

    Returns:
        The score in [1, K] and its 95 % interval from the scatter among splits; of one split it has no ends (NaN).

    Raises:
        ValueError: for rows that are no probabilities and for more splits than samples.
    """
    p = as_set(probabilities, "probabilities", 1)
    # Softmax in half precision sums to 1 within about 1e-3.
    if (p < 0).any() or np.abs(p.sum(1) - 1).max() > 1e-2:
        raise ValueError("The probabilities must be rows >= 0 that sum to 1; apply the softmax to logits first.")
    if not 1 <= splits <= len(p):
        raise ValueError(f"The {len(p)} samples cannot be cut into {splits} splits; give 1 up to {len(p)}.")
    p = np.random.default_rng(seed).permutation(p / p.sum(1, keepdims=True))
    scores = []
    for part in np.array_split(p, splits):
        mean = part.mean(0)
        # Where p(y|x) = 0 the term is 0; p(y) = 0 only where all of these are.
        ratio = np.divide(part, mean, out=np.ones_like(part), where=part > 0)
        scores.append(math.exp((part * np.log(ratio)).sum(1).mean()))
    if splits == 1:
        return Interval(scores[0], math.nan, math.nan)
    return around(float(np.mean(scores)), float(np.std(scores, ddof=1) / math.sqrt(splits)), splits - 1)
