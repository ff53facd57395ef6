"""Guidance and constraints: functions from a denoiser to a denoiser."""

from osmotic.guidance.classifier_free import ClassifierFree

__all__ = ["ClassifierFree"]
