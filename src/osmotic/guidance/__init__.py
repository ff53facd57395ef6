"""Guidance and constraints: functions from a denoiser to a denoiser."""

from osmotic.guidance.classifier_free import ClassifierFree
from osmotic.guidance.inpaint import Inpaint
from osmotic.guidance.scaled import Scaled

__all__ = ["ClassifierFree", "Inpaint", "Scaled"]
