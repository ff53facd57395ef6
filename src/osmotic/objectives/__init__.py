"""Training objectives: pure functions in which noise and time are arguments."""

from osmotic.objectives.bound import Parts, bound, term
from osmotic.objectives.continuous_bound import continuous_bound
from osmotic.objectives.couplings import ClasswiseOT, Coupling, Independent, MiniBatchOT
from osmotic.objectives.decoders import Continuous, Decoder, Discretised, Softmax
from osmotic.objectives.denoising import denoising
from osmotic.objectives.hybrid import hybrid
from osmotic.objectives.latent import Terms, cross_entropy, negative_entropy
from osmotic.objectives.score_matching import denoising_score, explicit, implicit, sliced

__all__ = [
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
    "bound",
    "continuous_bound",
    "cross_entropy",
    "denoising",
    "denoising_score",
    "explicit",
    "hybrid",
    "implicit",
    "negative_entropy",
    "sliced",
    "term",
]
