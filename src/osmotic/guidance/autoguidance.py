"""Autoguidance: a good denoiser, led away from a bad version of itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance
from osmotic.levels import Level
from osmotic.schedules import Number


class Autoguidance(Guidance):
    """``bad + scale (good - bad)`` under the same condition (Karras et al. 2024, arXiv 2406.02507).

    The bad one is smaller, less trained or otherwise degraded in the same way as the good one is imperfect; what it
    lacks more is pushed out, and by their measurements without the loss of variety that leading away from the
    unconditional costs. scale = 1 is the good one alone, 0 the bad one alone, each at one forward; else each takes its
    own.

    Args:
        good: the denoiser to be improved, guided or not.
        bad: another on the same path.
        scale: one for all or one per sample ``(B,)``.

    Raises:
        ValueError: if the two are on different paths.
    """

    def __init__(self, good: Denoiser, bad: Denoiser, scale: Number) -> None:
        super().__init__()
        _refuse_other_paths(good, bad)
        self.good, self.bad, self.scale = good, bad, scale
        self.around(good)
        self.start, self.diagonal = min(good.start, bad.start), good.diagonal and bad.diagonal
        self.consistent = good.consistent and bad.consistent

    @property
    def plain(self) -> Denoiser:
        return self.good

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        for denoiser in (self.good, self.bad):
            denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        same = None if isinstance(self.scale, Tensor) else self.scale  # of all samples, without reading a device
        if same in (0, 1):
            alone: Estimate = (self.good if same == 1 else self.bad)(x, t, cond, s)
            return alone
        return self.both(x, t, cond, s)[1]

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        good: Estimate = self.good(x, t, cond, s)
        if not isinstance(self.scale, Tensor) and self.scale == 1:
            return good, good
        bad: Estimate = self.bad(x, t, cond, s)
        return good, bad.lerp(good, self.scale)


def _refuse_other_paths(good: Denoiser, bad: Denoiser) -> None:
    if good.schedule is bad.schedule:
        return
    matrices = good.schedule.matrix_valued or bad.schedule.matrix_valued
    times = torch.linspace(0, 1, 17, dtype=torch.float64)
    pairs = zip(good.schedule(times), bad.schedule(times), strict=True) if not matrices else ()
    if matrices or not all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in pairs):
        raise ValueError(
            f"Autoguidance needs two denoisers on the same path; these are on {type(good.schedule).__name__} and "
            f"{type(bad.schedule).__name__} with other levels: wrap one in Rescheduled."
        )
