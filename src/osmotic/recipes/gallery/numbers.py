"""What the figures share: the form of their numbers, and the closed-form problems they are measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from osmotic.oracles import GaussianMixture
from osmotic.schedules import Schedule

Array: TypeAlias = NDArray[Any]
# Everything a figure shows, by name.
Numbers: TypeAlias = Mapping[str, Array]

MEANS, DEVIATION, WEIGHTS = (-1.0, 1.0), 0.25, (0.4, 0.6)


def two_peaks(schedule: Schedule) -> GaussianMixture:
    """The one-dimensional data of most figures: two narrow peaks of unequal weight, about unit variance."""
    means = torch.tensor(MEANS, dtype=torch.float64)[:, None]
    return GaussianMixture(schedule, means, DEVIATION**2, list(WEIGHTS))


def moments(schedule: Schedule, t: Tensor) -> tuple[Array, Array]:
    """The exact mean and variance of :func:`two_peaks` diffused to times ``(m,)``."""
    alpha, sigma = (v.numpy() for v in schedule(t))
    mean = float(np.dot(WEIGHTS, MEANS))
    variance = float(np.dot(WEIGHTS, np.square(MEANS))) + DEVIATION**2 - mean**2
    return alpha * mean, alpha**2 * variance + sigma**2


def densities(oracle: GaussianMixture, x: Tensor, times: Tensor) -> Array:
    """The density of the path's marginals, ``(len(times), len(x))``."""
    return np.stack([oracle.log_prob(x[:, None], t).exp().numpy() for t in times])


def histogram(x: Array, edges: Array) -> Array:
    """Shares per unit of length in the bins between edges."""
    counts, _ = np.histogram(x, edges)
    return np.asarray(counts / (len(x) * np.diff(edges)))


def slope(sizes: Array, errors: Array) -> Array:
    """The order of convergence: the slope of log error over log size."""
    return np.asarray(np.polyfit(np.log(sizes), np.log(errors), 1)[0])
