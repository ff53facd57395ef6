"""The Frechet distance of two sets of features, and what it would be without the bias of finite sets."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.interval import Interval, around
from osmotic.metrics.moments import Moments
from osmotic.metrics.sets import Set, as_pair, as_set

PARTS = 5
"""The smallest subsets of :func:`frechet_infinite` are this part of the set. 15 distances are computed."""


def frechet(a: Moments | ArrayLike, b: Moments | ArrayLike) -> float:
    """The Frechet distance of two Gaussians, squared Wasserstein-2: FID if the features are Inception's.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)`` (Dowson & Landau 1982; Heusel et al. 2017, arXiv
    1706.08500), in squared units of the features. Singular covariances are taken as they are.

    Args:
        a: moments, or features ``(N, ...)``.
        b: likewise.

    Raises:
        ValueError: for moments of different widths or without a covariance.
    """
    a, b = (m if isinstance(m, Moments) else Moments().update(as_set(m, "features")) for m in (a, b))
    if a.width != b.width:
        raise ValueError(f"Moments of {a.width} and of {b.width} features have no distance; use the same features.")
    return _distance(a.mean, _root(a), b.mean, _root(b))


def rank_warning(moments: Moments) -> str | None:
    """A sentence for a user whose set is too small for its features; None where it is not."""
    if moments.count is None or moments.count > moments.width:
        return None
    return (
        f"{moments.count} samples leave the covariance of {moments.width} features singular, so the Frechet distance"
        f" is mostly bias: take more than {moments.width} samples, or a kernel distance."
    )


def frechet_infinite(x: ArrayLike, reference: ArrayLike | Moments, *, seed: int = 0) -> Interval:
    """The Frechet distance extrapolated to infinitely many samples.

    A set of N samples is on average too far by nearly ``c / N``. Here x is split into 1, 2, ... 5 disjoint random
    parts, and the line through the parts' distances against 1/N is read at 0 (Chong & Forsyth 2020, arXiv 1911.07023,
    who draw overlapping subsets). Features of the reference are split alike, so that its own bias goes as well;
    moments are taken as the law itself.

    The error comes from the scatter among parts of one size: the mean over k parts varies as one of ``s_k^2 / k``.
    The line is one as long as the smallest part has several times as many samples as features.

    Args:
        x: ``(N, ...)`` features of samples, N at least 10.
        reference: features ``(M, ...)`` of real data, or their moments.
        seed: of the partitions.

    Returns:
        The distance and its 95 % interval. It is unbiased, so it can lie below 0 for equal laws.

    Raises:
        ValueError: for fewer than 10 samples, features that are not finite, and different widths.
    """
    rng = np.random.default_rng(seed)
    least = 2 * PARTS
    if isinstance(reference, Moments):
        x = as_set(x, "samples", least)
        if x.shape[1] != reference.width:
            raise ValueError(f"The samples have {x.shape[1]} features and the reference {reference.width}.")
        law = reference.mean, _root(reference)
        found = [[_distance(*_fit(part), *law) for part in _parts(x, k, rng)] for k in range(1, PARTS + 1)]
    else:
        x, y = as_pair(x, reference, least=least)
        found = [
            [_distance(*_fit(p), *_fit(q)) for p, q in zip(_parts(x, k, rng), _parts(y, k, rng), strict=True)]
            for k in range(1, PARTS + 1)
        ]
    k = np.arange(1, PARTS + 1)
    # Least squares in k ~ 1/N, read at k = 0, as weights of the means.
    weights = 1 / PARTS - k.mean() * (k - k.mean()) / ((k - k.mean()) ** 2).sum()
    value = float(weights @ [np.mean(values) for values in found])
    freedom = PARTS * (PARTS - 1) / 2
    variance = sum((len(v) - 1) * np.var(v, ddof=1) / len(v) for v in found[1:]) / freedom
    return around(value, float(np.sqrt(variance * (weights**2).sum())), freedom)


def _parts(x: Set, k: int, rng: np.random.Generator) -> list[Set]:
    return [x[i] for i in np.array_split(rng.permutation(len(x)), k)]


def _fit(x: Set) -> tuple[Set, Set]:
    moments = Moments().update(x)
    return moments.mean, _root(moments)


def _root(moments: Moments) -> Set:
    """A with ``A A^T`` the covariance, ``(D, rank)``; eigenvalues that are rounding are left out."""
    values, vectors = np.linalg.eigh(moments.covariance)
    kept = values > len(values) * np.finfo(float).eps * max(values[-1], 0.0)
    root: Set = vectors[:, kept] * np.sqrt(values[kept])
    return root


def _distance(mean_a: Set, a: Set, mean_b: Set, b: Set) -> float:
    # tr (S_a^1/2 S_b S_a^1/2)^1/2 is the sum of singular values of A^T B. The eigenvalues of the symmetric product are
    # their squares, and the root of a rounded 0 is 1e-8: over a thousand null directions that adds up.
    overlap = np.linalg.svd(a.T @ b, compute_uv=False).sum() if a.size and b.size else 0.0
    gap = ((mean_a - mean_b) ** 2).sum()
    return max(float(gap + (a**2).sum() + (b**2).sum() - 2 * overlap), 0.0)
