"""How many different things are there among samples, whatever real data look like?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.kernel import Kernel, NegativeDistance, mean_within
from osmotic.metrics.sets import Set, as_labels, as_set


def vendi(x: ArrayLike, kernel: Kernel | None = None) -> float:
    """The Vendi score, an effective number of different samples: 1 for copies, N for samples with nothing in common.

    ``exp(-sum lambda log lambda)`` over the eigenvalues of ``K / N``, with ``K_ii = 1`` (Friedman & Dieng 2023, arXiv
    2210.02410). Without a kernel K is the cosine, whose score is at most D; then memory is N D and not N^2.

    Args:
        x: ``(N, ...)``, at least 1. The score grows with N: compare at equal counts.
        kernel: positive definite; divided by the root of its diagonal so that ``K_ii = 1``.

    Raises:
        ValueError: for samples that are not finite, and where a sample is not like itself: all 0 under the cosine.
    """
    rows = as_set(x, "samples", 1)
    if kernel is None:
        norms = np.linalg.norm(rows, axis=1)
        if not norms.all():
            raise ValueError(f"{int((norms == 0).sum())} samples are all 0, which has no direction; give a kernel.")
        # K / N and this matrix' own smaller product share all eigenvalues but zeros.
        rows = rows / norms[:, None]
        product = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T
    else:
        product = kernel(rows, rows)
        diagonal = np.diag(product).copy()
        if (diagonal <= 0).any():
            raise ValueError("A kernel of a sample with itself must be positive; this one cannot measure diversity.")
        product = product / np.sqrt(np.outer(diagonal, diagonal))
    return _effective(np.linalg.eigvalsh(product / len(rows)))


def pairwise_diversity(x: ArrayLike, labels: ArrayLike) -> dict[int | str, float]:
    """The mean Euclidean distance of two different samples of the same class, by class.

    Beside the same number of real data it shows which classes a model draws too much alike.

    Args:
        x: ``(N, ...)``.
        labels: ``(N,)`` whole numbers or names.

    Returns:
        From label to distance, in the units of x; NaN for a class of a single sample.

    Raises:
        ValueError: for samples that are not finite and labels of another count.
    """
    rows = as_set(x, "samples", 1)
    classes = as_labels(labels, len(rows), "labels")
    found = {}
    for label in np.unique(classes):
        members = rows[classes == label]
        found[label.item()] = -mean_within(members, NegativeDistance()) if len(members) > 1 else math.nan
    return found


def _effective(shares: Set) -> float:
    """The exponential of the entropy; what is negative is the rounding of a 0."""
    positive = shares[shares > 0]
    return math.exp(-float(positive @ np.log(positive)))
