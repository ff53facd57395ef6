"""Scores by a classifier that never saw a sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def fit_classifier(x: ArrayLike, labels: ArrayLike) -> Any:
    """A support vector machine with a Gaussian kernel, trained on real data.

    Args:
        x: ``(N, ...)`` samples, flattened and scaled by their common standard deviation.
        labels: ``(N,)`` classes.

    Returns:
        A scikit-learn pipeline with ``predict`` and ``score``.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer
    from sklearn.svm import SVC

    scale = float(np.std(np.asarray(x))) or 1.0
    rescale = FunctionTransformer(_flatten, kw_args={"scale": scale})
    return make_pipeline(rescale, SVC(C=10.0, gamma="scale")).fit(np.asarray(x), np.asarray(labels))


def _flatten(x: ArrayLike, scale: float) -> NDArray[np.float64]:
    x = np.asarray(x, np.float64)
    return x.reshape(len(x), -1) / scale


def agreement(classifier: Any, samples: ArrayLike, labels: ArrayLike) -> float:
    """The share of samples that the classifier puts in the class they were asked to be, in [0, 1]."""
    return float(np.mean(classifier.predict(np.asarray(samples)) == np.asarray(labels)))


def accuracy_of_training_on(samples: ArrayLike, labels: ArrayLike, real: ArrayLike, real_labels: ArrayLike) -> float:
    """The classification accuracy score: train on samples alone, test on real data.

    Ravuri & Vinyals 2019 (arXiv 1905.10887).

    Returns:
        Accuracy on the real data, in [0, 1].
    """
    return agreement(fit_classifier(samples, labels), real, real_labels)
