"""Guidance and constraints: functions from a denoiser to a denoiser, in any order around each other.

Scale 1 is the plain conditional and 0 the unconditional, everywhere. ``Threshold(Interval(ClassifierFree(denoiser,
3.0), 0.2, 1.6), Dynamic())`` reads inside out: lead, at these levels only, and keep x0 in the range of the data. To add
a guidance, write a :class:`Guidance` in its own file and enter it in the tests' catalogue, whose conformance tests then
hold it.
"""

from osmotic.guidance.affine import Affine, Lead, composed, two_scales
from osmotic.guidance.autoguidance import Autoguidance
from osmotic.guidance.base import Guidance
from osmotic.guidance.classifier import Classifier
from osmotic.guidance.classifier_free import ClassifierFree
from osmotic.guidance.energy import Energy
from osmotic.guidance.inpaint import Inpaint
from osmotic.guidance.interval import Interval
from osmotic.guidance.operators import Blur, Downsample, Grey, Mask, Matrix, Operator
from osmotic.guidance.parts import by_parts
from osmotic.guidance.plus_plus import CFGPlusPlus
from osmotic.guidance.posterior import Posterior, given
from osmotic.guidance.pseudoinverse import PseudoInverse
from osmotic.guidance.rescale import Rescale
from osmotic.guidance.scaled import Scaled
from osmotic.guidance.thresholding import Clip, Dynamic, Threshold
from osmotic.guidance.untold import Untold
from osmotic.guidance.views import Given, Shown, View, everything, nothing

__all__ = [
    "Affine",
    "Autoguidance",
    "Blur",
    "CFGPlusPlus",
    "Classifier",
    "ClassifierFree",
    "Clip",
    "Downsample",
    "Dynamic",
    "Energy",
    "Given",
    "Grey",
    "Guidance",
    "Inpaint",
    "Interval",
    "Lead",
    "Mask",
    "Matrix",
    "Operator",
    "Posterior",
    "PseudoInverse",
    "Rescale",
    "Scaled",
    "Shown",
    "Threshold",
    "Untold",
    "View",
    "by_parts",
    "composed",
    "everything",
    "given",
    "nothing",
    "two_scales",
]
