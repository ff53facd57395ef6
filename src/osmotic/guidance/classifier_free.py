"""Classifier-free guidance: extrapolate from the unconditional estimate through the conditional one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.affine import Affine, Lead
from osmotic.guidance.base import Guidance
from osmotic.guidance.views import Given, everything, nothing
from osmotic.levels import Level
from osmotic.schedules import Number


class ClassifierFree(Guidance):
    """``unconditional + scale (conditional - unconditional)`` on the estimates (Ho & Salimans 2022, arXiv 2207.12598).

    scale = 1 is the plain conditional, 0 the unconditional, above 1 sharpens; the paper's w is scale - 1. The result is
    the same in every parameterization. Where both are needed they share one forward call of twice the batch; a scale
    that is the number 0 or 1 takes one of the batch itself. See :class:`~osmotic.guidance.Affine` for several
    conditions and several scales.

    Args:
        denoiser: a conditional denoiser trained with dropped conditions.
        scale: the guidance scale, one for all or one per sample ``(B,)``.
        negative: the condition to lead away from, for the whole batch or a single one for all its samples; None is
            "nothing".
    """

    def __init__(self, denoiser: Denoiser, scale: Number, negative: Condition | None = None) -> None:
        super().__init__()
        away = nothing if negative is None else Given(negative)
        self.scale, self.negative = scale, negative
        self.affine = Affine(denoiser, away, [Lead(away, everything, scale)])
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser:
        return self.affine.plain

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.affine.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        estimate: Estimate = (self.plain if cond is None else self.affine)(x, t, cond, s)
        return estimate

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        if cond is None:
            plain: Estimate = self.plain(x, t, cond, s)
            return plain, plain
        return self.affine.both(x, t, cond, s)
