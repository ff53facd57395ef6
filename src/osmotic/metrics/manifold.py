"""Are samples like real data, and is all of real data among them? Precision, recall, density and coverage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.distances import blocks, neighbour_distances, squared
from osmotic.metrics.sets import as_pair


@dataclass(frozen=True)
class Manifold:
    """What balls around samples tell.

    Args:
        precision: the share of samples inside some real sample's ball, in [0, 1].
        recall: the share of real samples inside some sample's ball, in [0, 1].
        density: how many real balls a sample lies in, relative to real data's own; near 1 for the same law, >= 0.
        coverage: the share of real samples whose ball holds a sample, in [0, 1]; near ``1 - 2^-k`` for the same law
            and as many samples as real ones.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real: ArrayLike, samples: ArrayLike, k: int = 3, k_density: int = 5) -> Manifold:
    """Precision and recall with k neighbours, density and coverage with k_density, in one pass over the distances.

    A ball reaches from a sample to its k-th nearest other of the same set. Precision and recall: Kynkaanniemi et al.
    2019 (arXiv 1904.06991). Density ``= (1 / (k M)) sum_ij [y_j in ball_i]`` and coverage: Naeem et al. 2020 (arXiv
    2002.09797). For N real samples and M of the same law, coverage is on average
    ``1 - prod_{i=1..k} (N - i) / (M + N - i)``. All four depend on the counts: compare at equal ones.

    Args:
        real: ``(N, ...)``, more than k and k_density.
        samples: ``(M, ...)`` of the same width, more than k.
        k: of precision and recall, at least 1.
        k_density: of density and coverage, at least 1.

    Raises:
        ValueError: for sets that are too small, not finite or of different widths, and for k below 1.
    """
    if min(k, k_density) < 1:
        raise ValueError(f"A ball reaches to at least the nearest neighbour, k >= 1; got {k} and {k_density}.")
    x, y = as_pair(real, samples, ("real data", "samples"), max(k, k_density) + 1)
    radii = neighbour_distances(x, max(k, k_density))
    narrow, wide = radii[:, k - 1], radii[:, k_density - 1]
    own = neighbour_distances(y, k)[:, k - 1]
    precise = np.zeros(len(y), bool)
    recalled, covered = np.empty(len(x), bool), np.empty(len(x), bool)
    inside = 0
    for rows in blocks(len(x), len(y)):
        gaps = squared(x[rows], y)
        precise |= (gaps <= narrow[rows, None]).any(0)
        recalled[rows] = (gaps <= own).any(1)
        within = gaps <= wide[rows, None]
        inside += int(within.sum())
        covered[rows] = within.any(1)
    return Manifold(float(precise.mean()), float(recalled.mean()), inside / (k_density * len(y)), float(covered.mean()))
