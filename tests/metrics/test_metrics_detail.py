"""What blur and noise do to contrast and detail, in closed form."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits

from osmotic.metrics import contrast, detail, fine_power


def test_scaled_samples_have_scaled_contrast_and_detail():
    x = load_digits().images[..., None]
    assert contrast(x, x) == pytest.approx(1)
    assert contrast(0.5 * x + 3, x) == pytest.approx(0.5)
    assert detail(0.5 * x + 3, x) == pytest.approx(0.25)  # power; a constant has no fine frequency


def test_white_noise_has_its_share_of_power_at_fine_frequencies():
    """Of an N x N transform all but the lowest quarter is fine, and every coefficient has the variance of a pixel."""
    noise = np.random.default_rng(0).normal(0, 2, (4000, 8, 8, 1))
    assert fine_power(noise) == pytest.approx(4 * 3 / 4, rel=5 * (2 / (4000 * 48)) ** 0.5)


def test_blurred_pictures_have_less_and_noisy_ones_more_detail():
    x = load_digits().images[..., None]
    blurred = gaussian_filter(x, (0, 0.7, 0.7, 0))
    assert detail(blurred, x) < 0.5
    assert contrast(blurred, x) < 1
    assert detail(x + np.random.default_rng(0).normal(0, 2, x.shape), x) > 1.2


def test_what_has_no_detail_is_named():
    with pytest.raises(ValueError, match="no fine detail"):
        detail(np.ones((3, 4, 4, 1)), np.ones((3, 4, 4, 1)))
    with pytest.raises(ValueError, match="all alike"):
        contrast(np.ones((3, 4)), np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"are \(N, H, W, C\)"):
        fine_power(np.ones((3, 4)))
    with pytest.raises(ValueError, match="have NaN or infinity in 1 of 2 rows"):
        contrast(np.array([[1.0], [np.nan]]), np.array([[1.0], [2.0]]))
    with pytest.raises(ValueError, match="3 columns and the"):
        contrast(np.ones((2, 3)), np.ones((2, 4)))
