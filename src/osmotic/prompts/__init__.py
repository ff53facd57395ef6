"""Prompt-to-prompt: two texts drawn side by side from one noise, the second with the first one's attention.

A pair (source, target) is one sample ``(B, 2, *S)``, so every sampler takes the same steps for both::

    edit = Edit.of(Text(captions.pieces(a), tokens_a), Text(captions.pieces(b), tokens_b))
    denoiser = Pair(ClassifierFree(Shared(model.denoiser, [edit]), 2.0), source)
    pairs = sample(sampler, denoiser, twice(noise), times, target, Common(generator))

Hertz et al. 2022 (arXiv 2208.01626).
"""

from osmotic.prompts.pair import Common, Pair, retold, twice
from osmotic.prompts.shared import Shared
from osmotic.prompts.words import Edit, Text

__all__ = ["Common", "Edit", "Pair", "Shared", "Text", "retold", "twice"]
