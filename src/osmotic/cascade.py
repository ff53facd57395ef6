"""The pieces of a cascade: a low resolution is drawn first, then the high one given a noisy copy of it.

Ho et al. 2021 (arXiv 2106.15282). The second stage sees ``y = alpha_s low + sigma_s z`` and is told s (conditioning
augmentation), so what the first stage gets wrong below that noise does not mislead it. With exact stages the pair (y,
high) has its joint law at every s, hence high its own; the pair (low, high) has it at s = 0 only, for given y the two
are then drawn independently.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from osmotic.clocks import Angle
from osmotic.condition import Condition
from osmotic.estimate import like
from osmotic.guidance.operators import Downsample
from osmotic.levels import as_time
from osmotic.schedules import Number, Schedule

Enlarge = Callable[[Tensor], Tensor]


def nearest(x: Tensor, factor: int, axes: Sequence[int] = (-2, -1)) -> Tensor:
    """Every cell repeated ``factor`` times along each axis: the pseudo-inverse of a mean over blocks.

    Args:
        x: ``(B, *S)``.
        factor: at least 1.
        axes: of x, counted from the end.
    """
    return Downsample(factor, axes).inverse(x)


def linear(x: Tensor, factor: int, axes: Sequence[int] = (-2, -1)) -> Tensor:
    """Linear interpolation between the middles of cells (bilinear on two axes), constant beyond the outermost ones.

    Args:
        x: ``(B, *S)``.
        factor: at least 1.
        axes: of x, counted from the end.
    """
    for axis in Downsample(factor, axes).axes:
        n = x.shape[axis]
        # New cells' middles in units of old cells, counted from the first one's middle.
        places = (torch.arange(n * factor, device=x.device) + 0.5) / factor - 0.5
        places = places.clamp(0, n - 1)
        below = places.long()
        share = (places - below).to(x).reshape(-1, *[1] * (-axis - 1))
        above = (below + 1).clamp(max=n - 1)
        x = torch.lerp(x.index_select(axis, below), x.index_select(axis, above), share)
    return x


class Augmented:
    """The condition of a super-resolution stage: a low resolution seen through noise of a level that is told.

    ``image = enlarge(alpha_s low + sigma_s eps)``, and the level joins the vector as its last attribute: ``(2 / pi)
    atan2(sigma_s, alpha_s)``, 0 for no noise and 1 for nothing else, the same on every path at equal log-SNR. In
    training s is drawn for each sample, in sampling it is chosen.

    Args:
        schedule: the path of the noise.
        enlarge: from the low to the high resolution, ``(B, *L)`` to ``(B, *S)``: as :func:`nearest`.
    """

    def __init__(self, schedule: Schedule, enlarge: Enlarge) -> None:
        self.schedule, self.enlarge, self._clock = schedule, enlarge, Angle(1.0)

    def __call__(self, low: Tensor, s: Number, eps: Tensor, cond: Condition | None = None) -> Condition:
        """The condition with the image, and the level beside what else is known.

        Args:
            low: low resolutions ``(B, *L)``.
            s: times in [0, 1], ``()`` or ``(B,)``; 0 shows them as they are.
            eps: unit noise like low.
            cond: a condition to add to; class labels become the first attribute.

        Raises:
            ValueError: for a time outside [0, 1], and a condition that has an image already.
        """
        s = as_time(s)
        if s.device.type == "cpu" and not bool(((s >= 0) & (s <= 1)).all()):
            raise ValueError(f"The level of an augmentation is a time in [0, 1]; got {float(s.min())}.")
        if cond is not None and cond.image is not None:
            raise ValueError("This condition has an image already, where the low resolution goes; give one without.")
        alpha, sigma = like(low, *self.schedule.numbers(s))
        image = self.enlarge(alpha * low + sigma * eps)
        level = self._clock(self.schedule, s).to(low).expand(len(low))[:, None]
        known = None if cond is None else cond.vector
        vector = level if known is None else torch.cat([known.reshape(len(low), -1).to(level), level], 1)
        return replace(Condition() if cond is None else cond, image=image, vector=vector)
