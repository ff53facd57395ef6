"""A denoiser that is told nothing, inside of a guidance that is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.schedules import Number


class Untold(Denoiser):
    """The same denoiser, which the condition does not reach: ``Classifier(Untold(denoiser), classifier)`` leads a model
    without classes to those of a classifier.

    Args:
        denoiser: any that can do without a condition.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        estimate: Estimate = self.denoiser(x, t, None, s)
        return estimate
