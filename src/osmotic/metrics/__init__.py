"""Measures of samples against data, on plain arrays.

All functions take numpy arrays with a sample in each row, compute in float64 and draw from their own seed. Features of
images come from :mod:`osmotic.metrics.features`.
"""

from osmotic.metrics.classifier import accuracy_of_training_on, agreement, fit_classifier
from osmotic.metrics.detail import contrast, detail, fine_power
from osmotic.metrics.diversity import pairwise_diversity, vendi
from osmotic.metrics.frechet import frechet, frechet_infinite, rank_warning
from osmotic.metrics.inception_score import inception_score
from osmotic.metrics.interval import Interval, bootstrap, jackknife
from osmotic.metrics.kernel import (
    GaussianKernel,
    Kernel,
    NegativeDistance,
    Polynomial,
    energy_distance,
    kid,
    median_scale,
    mmd,
)
from osmotic.metrics.manifold import Manifold, manifold
from osmotic.metrics.mmd_interval import mmd_interval
from osmotic.metrics.moments import Moments, gathered
from osmotic.metrics.neighbours import (
    Neighbours,
    Ratios,
    authentic,
    authenticity,
    distance_ratios,
    nearest,
    share_closer,
)
from osmotic.metrics.sequences import autocorrelation, autocorrelation_distance, power_spectrum, spectrum_distance
from osmotic.metrics.tables import (
    Classification,
    Regression,
    associations,
    column_distances,
    correlation_gap,
    train_on_synthetic,
)
from osmotic.metrics.transport import sliced, wasserstein
from osmotic.metrics.two_sample import TwoSample, two_sample

__all__ = [
    "Classification",
    "GaussianKernel",
    "Interval",
    "Kernel",
    "Manifold",
    "Moments",
    "NegativeDistance",
    "Neighbours",
    "Polynomial",
    "Ratios",
    "Regression",
    "TwoSample",
    "accuracy_of_training_on",
    "agreement",
    "associations",
    "authentic",
    "authenticity",
    "autocorrelation",
    "autocorrelation_distance",
    "bootstrap",
    "column_distances",
    "contrast",
    "correlation_gap",
    "detail",
    "distance_ratios",
    "energy_distance",
    "fine_power",
    "fit_classifier",
    "frechet",
    "frechet_infinite",
    "gathered",
    "inception_score",
    "jackknife",
    "kid",
    "manifold",
    "median_scale",
    "mmd",
    "mmd_interval",
    "nearest",
    "pairwise_diversity",
    "power_spectrum",
    "rank_warning",
    "share_closer",
    "sliced",
    "spectrum_distance",
    "train_on_synthetic",
    "two_sample",
    "vendi",
    "wasserstein",
]
