"""Measures of samples against data, on plain arrays."""

from osmotic.metrics.classifier import accuracy_of_training_on, agreement, fit_classifier
from osmotic.metrics.neighbours import Neighbours, nearest, share_closer

__all__ = ["Neighbours", "accuracy_of_training_on", "agreement", "fit_classifier", "nearest", "share_closer"]
