"""Autocorrelations and spectra against direct sums, closed forms and Parseval."""

import numpy as np
import pytest
from scipy.signal import lfilter, periodogram

from osmotic.metrics import autocorrelation, autocorrelation_distance, power_spectrum, sequences, spectrum_distance


def autoregression(phi: float, count: int, length: int, seed: int) -> np.ndarray:
    """``x_t = phi x_{t-1} + z_t``, stationary, ``(count, 1, length)``."""
    z = np.random.default_rng(seed).normal(size=(count, 1, length + 200))
    return lfilter([1], [1, -phi], z)[:, :, 200:]


@pytest.mark.parametrize("length", [2, 7, 16])
def test_direct_sums(length, monkeypatch):
    monkeypatch.setattr(sequences, "BUDGET", 40)  # several blocks
    x = np.random.default_rng(0).normal(size=(9, 3, length)).cumsum(2) + 5
    found = autocorrelation(x, length - 1)
    centred = x - x.mean((0, 2), keepdims=True)
    c = [np.mean(centred[:, :, : length - k] * centred[:, :, k:], axis=(0, 2)) for k in range(length)]
    assert np.allclose(found, (np.array(c) / c[0]).T, atol=1e-12)
    assert autocorrelation(x).shape == (3, length // 2 + 1)


@pytest.mark.parametrize("phi", [-0.6, 0.0, 0.8])
def test_an_autoregression_forgets_by_powers(phi):
    found = autocorrelation(autoregression(phi, 2000, 100, 0), 10)[0]
    # Bartlett: the deviation of each is at most about sqrt((1 + phi^2) / (1 - phi^2) / values).
    error = np.sqrt((1 + phi**2) / (1 - phi**2) / 200_000)
    assert np.abs(found - phi ** np.arange(11)).max() < 5 * error


def test_the_distance_between_two_autoregressions():
    lags = np.arange(1, 11)
    truth = np.sqrt(np.mean((0.8**lags - 0.3**lags) ** 2))
    x, y, z = (autoregression(phi, 1500, 100, seed) for phi, seed in ((0.8, 0), (0.3, 1), (0.8, 2)))
    assert autocorrelation_distance(x, y, 10) == pytest.approx(truth, abs=0.03)
    assert autocorrelation_distance(x, z, 10) < 0.03
    assert autocorrelation_distance(x, -3 * x + 7, 10) < 1e-12


def test_a_constant_channel_goes_with_nothing():
    x = np.random.default_rng(0).normal(size=(4, 2, 10))
    x[:, 1] = 1e8 / 3
    found = autocorrelation(x, 3)
    assert np.array_equal(found[1], [1, 0, 0, 0])


@pytest.mark.parametrize("length", [1, 2, 9, 16])
def test_parseval_and_scipy(length):
    x = np.random.default_rng(0).normal(size=(20, 3, length)) + 2
    found = power_spectrum(x)
    assert found.shape == (3, length // 2 + 1)
    assert np.allclose(found.sum(1), (x**2).sum(2).mean(0))
    if length > 1:
        theirs = periodogram(x, detrend=False, scaling="spectrum")[1].mean(0) * length
        assert np.allclose(found, theirs)


def test_the_spectrum_of_an_autoregression():
    """White noise filtered, ``1 / |1 - phi e^{-2 pi i f}|^2``: each frequency errs as a mean of exponentials does."""
    phi, count, length = 0.5, 3000, 128
    found = power_spectrum(autoregression(phi, count, length, 0))[0]
    f = np.arange(length // 2 + 1) / length
    truth = 1 / np.abs(1 - phi * np.exp(-2j * np.pi * f)) ** 2 * np.where((f == 0) | (f == 0.5), 1, 2)
    # The ends of a finite sequence leak about phi / ((1 - phi)^2 length) of the power.
    assert np.abs(found / truth - 1).max() < 5 * np.sqrt(2 / count) + 4 * phi / length


def test_decibels():
    x = np.random.default_rng(0).normal(size=(50, 2, 32))
    assert spectrum_distance(x, x) == 0
    assert spectrum_distance(x, 10 * x) == pytest.approx(20)
    half = x.copy()
    half[:, 1] *= 10
    assert spectrum_distance(x, half) == pytest.approx(20 / np.sqrt(2))
    assert spectrum_distance(x, half) == spectrum_distance(half, x)
    assert spectrum_distance(0 * x, 0 * x) == 0
    assert spectrum_distance(x, 0 * x) > 100
    assert spectrum_distance(x, np.random.default_rng(1).normal(size=(2000, 2, 32))) < 3
    # Fast movement is taken out: what a mean or a deviation does not see.
    smooth = np.fft.irfft(np.fft.rfft(x) * (np.arange(17) < 8), 32)
    assert spectrum_distance(x, smooth) > 50


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: autocorrelation(x[0]), r"shape \(N, C, L\); got \(2, 8\)"),
        (lambda x: autocorrelation(x, 8), r"0 \.\. 7; got 8"),
        (lambda x: autocorrelation_distance(x, x[:, :1]), r"are \(2, 8\) each and the samples \(1, 8\)"),
        (lambda x: autocorrelation_distance(x, x, 0), "no lag"),
        (lambda x: spectrum_distance(x, x * np.nan), "samples have NaN or infinity in 3 of 3"),
    ],
)
def test_wrong_use_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(np.random.default_rng(0).normal(size=(3, 2, 8)))
