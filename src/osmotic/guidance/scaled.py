"""Guidance that a student has learned: it is told the scale, and one evaluation does what two did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.schedules import Number


class Scaled(Denoiser):
    """A guidance-conditioned denoiser at one scale (Meng et al. 2023, arXiv 2210.03142).

    Args:
        denoiser: whose network reads ``cond.scale``.
        scale: the guidance scale, 1 for plain.
    """

    def __init__(self, denoiser: Denoiser, scale: float) -> None:
        super().__init__()
        self.denoiser, self.scale = denoiser, scale
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if cond is not None and not isinstance(cond, Condition):
            raise TypeError(f"A guidance scale stands in an osmotic Condition; got {type(cond).__name__}.")
        scale = torch.full((len(x),), float(self.scale), device=x.device)
        told = Condition(scale=scale) if cond is None else replace(cond, scale=scale)
        estimate: Estimate = self.denoiser(x, t, told, s)
        return estimate
