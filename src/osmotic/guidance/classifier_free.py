"""Classifier-free guidance: extrapolate from the unconditional estimate through the conditional one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


class ClassifierFree(Denoiser):
    """``unconditional + scale (conditional - unconditional)`` on the estimates (Ho & Salimans 2022, arXiv 2207.12598).

    scale = 1 is the plain conditional, 0 the unconditional, above 1 sharpens; the paper's w is scale - 1. Because an
    estimate is affine in the network output, the result is the same in every parameterization. Where both are needed
    they share one forward call of twice the batch.

    Args:
        denoiser: a conditional denoiser trained with dropped conditions.
        scale: the guidance scale, one for all or one per sample ``(B,)``.
        negative: the condition to lead away from, for the whole batch; None is "nothing".
    """

    def __init__(self, denoiser: Denoiser, scale: Number, negative: Condition | None = None) -> None:
        super().__init__()
        self.denoiser, self.scale, self.negative = denoiser, scale, negative
        self.around(denoiser)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        same = None if isinstance(self.scale, Tensor) else self.scale  # of all samples, without reading a device
        if cond is None or same == 1:
            return self._one(x, t, cond, s)
        if not isinstance(cond, Condition):
            raise TypeError(
                f"Guidance needs an osmotic Condition to know what 'nothing' is; got {type(cond).__name__}."
            )
        nothing = cond.drop(torch.zeros(len(cond), dtype=torch.bool, device=x.device))
        away = self.negative if self.negative is not None else nothing
        if same == 0:
            return self._one(x, t, away, s)
        return self._both(x, t, away, cond, s)

    def _one(self, x: Tensor, t: Tensor, cond: object, s: Number | None) -> Estimate:
        estimate: Estimate = self.denoiser(x, t, cond, s)
        return estimate

    def _both(self, x: Tensor, t: Tensor, away: Condition, cond: Condition, s: Number | None) -> Estimate:
        """One call on ``[away, cond]``, then one mix per half."""
        aim = None if s is None else _twice(s)
        estimate = self._one(torch.cat([x, x]), _twice(t), Condition.cat([away, cond]), aim)
        first, second = estimate.split(len(x))
        return first.lerp(second, self.scale)


def _twice(t: Number) -> Tensor:
    """Times for twice the batch: a single time serves as it is."""
    t = as_time(t)
    return torch.cat([t, t]) if t.ndim else t
