"""The features that are used when nobody names any: no training, no download."""

from __future__ import annotations

from .base import Array, Features
from .principal import Principal
from .random_conv import SMALLEST, RandomConv
from .raw import Pixels, Raw

# Values of a sample up to which they are features themselves: a covariance of more needs more samples than people draw.
FEW = 256


def default_features(kind: str, training: Array) -> Features:
    """Features fitted to training data.

    Args:
        kind: of the data: "images", or anything else.
        training: ``(N, H, W, 1 or 3)`` uint8 for images, else ``(N, ...)`` numbers.

    Returns:
        Random convolutions for images, pixels for images below 4 x 4; standardised values for the rest, and 64
        principal components of them where a sample has more than 256.
    """
    if kind == "images":
        if min(training.shape[1:3]) >= SMALLEST:
            return RandomConv.fitted(training)
        return Pixels(training.shape[1:])
    raw = Raw.fitted(training)
    return raw if raw.dimensions <= FEW else Principal.fitted(raw, training)
