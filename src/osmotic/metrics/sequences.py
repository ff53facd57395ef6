"""Sequences of samples against real ones: how they remember themselves, and at which frequencies they move."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from osmotic.metrics.sets import Set, as_set

BUDGET = 2**21  # numbers transformed at a time


def autocorrelation(x: ArrayLike, lags: int | None = None) -> Set:
    """The mean autocorrelation of a set of sequences, ``(C, lags + 1)``.

    ``r_k = c_k / c_0``, ``c_k = mean over sequences and t of (x_t - m)(x_{t+k} - m)`` with one mean m per channel over
    the whole set: a mean per sequence would hide slow movement. 1 at lag 0; 0 at the others where a channel is
    constant. By fast Fourier transforms.

    Args:
        x: ``(N, C, L)``.
        lags: the last lag, up to L - 1; half the length by default, as far lags are means of few products.

    Raises:
        ValueError: for other shapes, numbers that are not finite, and lags out of range.
    """
    values = _sequences(x, "sequences")
    length = values.shape[2]
    last = length // 2 if lags is None else lags
    if not 0 <= last < length:
        raise ValueError(f"Lags of sequences of length {length} lie in 0 .. {length - 1}; got {last}.")
    centred = values - values.mean((0, 2), keepdims=True)
    # Padding with zeros to twice the length keeps the end from meeting the beginning.
    products = np.fft.irfft(_mean_power(centred, 2 * length), 2 * length)[:, : last + 1]
    covariance: Set = products / (length - np.arange(last + 1))
    # What rounding leaves of a constant channel is no movement.
    moves = covariance[:, :1] > 1e-24 * (values**2).mean((0, 2))[:, None]
    result: Set = np.divide(covariance, covariance[:, :1], out=np.zeros_like(covariance), where=moves)
    result[:, 0] = 1.0
    return result


def autocorrelation_distance(real: ArrayLike, samples: ArrayLike, lags: int | None = None) -> float:
    """The root mean square difference of the two sets' :func:`autocorrelation` over channels and lags 1 .. lags.

    Raises:
        ValueError: also for sets of different channels or lengths, and for lags below 1.
    """
    x, y = _alike(real, samples)
    one, two = autocorrelation(x, lags)[:, 1:], autocorrelation(y, lags)[:, 1:]
    if not one.shape[1]:
        raise ValueError("There is no lag to compare; give sequences of length 2 at least and lags of 1 at least.")
    return float(np.sqrt(((one - two) ** 2).mean()))


def power_spectrum(x: ArrayLike) -> Set:
    """The mean power at each frequency, ``(C, L // 2 + 1)``, in squared units of the data.

    ``P_f = mean |X_f|^2 / L``, those of f and -f added, f = 0, 1, ... L // 2 cycles a sequence. By Parseval's theorem
    its sum is the mean energy, ``mean over sequences of sum_t x_t^2``.

    Args:
        x: ``(N, C, L)``.

    Raises:
        ValueError: for other shapes and numbers that are not finite.
    """
    values = _sequences(x, "sequences")
    length = values.shape[2]
    power: Set = _mean_power(values, length) / length
    # Frequencies 0 and, of an even length, the last stand alone; the others also for their negatives.
    power[:, 1 : (length + 1) // 2] *= 2
    return power


def spectrum_distance(real: ArrayLike, samples: ArrayLike) -> float:
    """The log-spectral distance, ``(mean (10 log10 P_f / Q_f)^2)^1/2`` over channels and frequencies, in decibels.

    P and Q are the two sets' :func:`power_spectrum`. Gray & Markel 1976 ("Distance measures for speech processing").
    Power below 1e-12 of a channel's strongest, about 120 dB down, counts as that much: silence has no logarithm.

    Raises:
        ValueError: also for sets of different channels or lengths.
    """
    p, q = (power_spectrum(s) for s in _alike(real, samples))
    floor = 1e-12 * np.maximum(p, q).max(1, keepdims=True)
    floor[floor == 0] = 1.0  # both silent: equal
    decibels = 10 * np.log10(np.maximum(p, floor) / np.maximum(q, floor))
    return float(np.sqrt((decibels**2).mean()))


def _mean_power(values: Set, length: int) -> Set:
    """``mean |X_f|^2`` over sequences that are padded with zeros to a length, some sequences at a time."""
    size = max(1, BUDGET // (values.shape[1] * length))
    parts = (values[i : i + size] for i in range(0, len(values), size))
    mean: Set = sum((np.abs(np.fft.rfft(part, length)) ** 2).sum(0) for part in parts) / len(values)
    return mean


def _sequences(x: ArrayLike, name: str) -> Set:
    array = np.asarray(x)
    if array.ndim != 3:
        raise ValueError(f"The {name} must be of shape (N, C, L); got {array.shape}.")
    return as_set(array, name, 1).reshape(array.shape)


def _alike(real: ArrayLike, samples: ArrayLike) -> tuple[Set, Set]:
    x, y = _sequences(real, "real sequences"), _sequences(samples, "samples")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"The real sequences are {x.shape[1:]} each and the samples {y.shape[1:]}; compare like with like."
        )
    return x, y
