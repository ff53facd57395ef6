"""Training objectives: pure functions in which noise and time are arguments."""

from osmotic.objectives.adversarial import Adversarial, adaptive_weight, hinge_discriminator, hinge_generator
from osmotic.objectives.bottleneck import commitment, kl_normal
from osmotic.objectives.bound import Parts, bound, term
from osmotic.objectives.continuous_bound import continuous_bound
from osmotic.objectives.contrastive import info_nce
from osmotic.objectives.couplings import ClasswiseOT, Coupling, Independent, MiniBatchOT
from osmotic.objectives.decoders import Continuous, Decoder, Discretised, Softmax
from osmotic.objectives.denoising import denoising
from osmotic.objectives.hybrid import hybrid
from osmotic.objectives.latent import Terms, cross_entropy, negative_entropy
from osmotic.objectives.reconstruction import absolute, perceptual, pseudo_huber
from osmotic.objectives.score_matching import denoising_score, explicit, implicit, sliced

__all__ = [
    "Adversarial",
    "ClasswiseOT",
    "Continuous",
    "Coupling",
    "Decoder",
    "Discretised",
    "Independent",
    "MiniBatchOT",
    "Parts",
    "Softmax",
    "Terms",
    "absolute",
    "adaptive_weight",
    "bound",
    "commitment",
    "continuous_bound",
    "cross_entropy",
    "denoising",
    "denoising_score",
    "explicit",
    "hinge_discriminator",
    "hinge_generator",
    "hybrid",
    "implicit",
    "info_nce",
    "kl_normal",
    "negative_entropy",
    "perceptual",
    "pseudo_huber",
    "sliced",
    "term",
]
