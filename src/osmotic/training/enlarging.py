"""What a model that enlarges pictures is told: a low resolution, and how much noise has been put over it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from osmotic.cascade import Augmented, nearest
from osmotic.condition import Condition
from osmotic.guidance.operators import Downsample
from osmotic.schedules import Cosine, Number
from osmotic.training.task import Batch, Stream

PATH = Cosine()
"""Of the noise, whatever the run's own path is: on it the level that is told is the time itself."""

MOST = 0.5
"""The noisiest level in training, where signal and noise of unit variance are equally strong."""


def shown(cond: Condition, low: Tensor, factor: int, s: Number, eps: Tensor) -> Condition:
    """A condition whose image is a low resolution under noise: ``nearest(alpha_s low + sigma_s eps)``, and its level s.

    Args:
        cond: whose image is to be replaced, the level being the last of its vector.
        low: ``(B, C, *L)``.
        factor: to the high resolution.
        s: the level, a time in [0, 1], ``()`` or ``(B,)``; 0 for none.
        eps: unit noise like low.
    """
    assert cond.vector is not None
    known = cond.vector[:, :-1] if cond.vector.shape[1] > 1 else None
    augmented = Augmented(PATH, lambda x: nearest(x, factor))
    return augmented(low, s, eps, replace(cond, image=None, vector=known))


@dataclass(frozen=True)
class Blurred:
    """The condition of a batch in training: its own low resolutions, each under noise of a level that is drawn.

    ``s = MOST u^2`` with u uniform: most often little, for that is where it is used. Ho et al. 2021 (arXiv 2106.15282),
    non-truncated conditioning augmentation.

    Args:
        factor: of the low resolution.
    """

    factor: int

    def __call__(self, batch: Batch) -> Condition:
        """The condition; it is made of the pictures as they are, mirrored and shifted."""
        assert batch.cond is not None
        low = Downsample(self.factor)(batch.x0)
        s = MOST * batch.noise.uniform(Stream.LEVEL) ** 2
        return shown(batch.cond, low, self.factor, s, batch.noise.normal(Stream.LOW, low.shape[1:]))
