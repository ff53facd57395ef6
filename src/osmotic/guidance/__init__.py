"""Guidance and constraints: functions from a denoiser to a denoiser."""

from osmotic.guidance.classifier_free import ClassifierFree
from osmotic.guidance.inpaint import Inpaint

__all__ = ["ClassifierFree", "Inpaint"]
