"""How much of a picture's contrast and of its fine detail is there: what blur takes away."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.sets import as_pair, as_set

FINE = 0.5
"""Frequencies above this share of the highest one, in either direction, are fine."""


def contrast(samples: ArrayLike, real: ArrayLike) -> float:
    """The root mean variance of an entry over samples, relative to that of real data.

    ``sqrt(mean_j var_i x_ij / mean_j var_i y_ij)``; 1 where the spread is right, below 1 for samples that are too
    alike or blurred towards the mean, above 1 for samples with noise left in them.

    Args:
        samples: ``(N, ...)``.
        real: ``(M, ...)`` of the same shape a sample.

    Raises:
        ValueError: for real data without any spread, and for sets that are not finite or of different widths.
    """
    x, y = as_pair(samples, real, ("samples", "real data"))
    spread = float(y.var(0).mean())
    if spread == 0:
        raise ValueError("The real data are all alike, so there is no contrast to compare with.")
    return float(np.sqrt(x.var(0).mean() / spread))


def fine_power(images: ArrayLike) -> float:
    """The mean power of pictures at fine frequencies, ``(N, H, W, C)``, in squared units of a pixel.

    The cosine transform's coefficients of which one index lies in the upper half, squared and averaged over pictures,
    channels and the picture's pixels (Parseval: over all coefficients it would be the mean square of a pixel).

    Raises:
        ValueError: for what are no pictures.
    """
    from scipy.fft import dctn

    x = np.asarray(images, np.float64)
    if x.ndim != 4 or min(x.shape[1:3]) < 2:
        raise ValueError(f"Pictures are (N, H, W, C) of 2 pixels a side at least; got {x.shape}.")
    as_set(x, "pictures", 1)
    power = dctn(x, axes=(1, 2), norm="ortho") ** 2
    fine = np.zeros(x.shape[1:3], bool)
    fine[int(np.ceil(FINE * x.shape[1])) :, :] = True
    fine[:, int(np.ceil(FINE * x.shape[2])) :] = True
    return float(power[:, fine].sum() / (power.size))


def detail(samples: ArrayLike, real: ArrayLike) -> float:
    """The fine power of samples relative to that of real pictures: 1 where it is right, towards 0 for blurred ones.

    Raises:
        ValueError: for real pictures without any.
    """
    known = fine_power(real)
    if known == 0:
        raise ValueError("The real pictures have no fine detail, so there is none to compare with.")
    return fine_power(samples) / known
