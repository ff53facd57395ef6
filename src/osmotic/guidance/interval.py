"""Guidance in a limited interval of noise levels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.guidance.base import Guidance, led, refuse_matrices
from osmotic.levels import Level, as_time, once
from osmotic.schedules import Number


class Interval(Guidance):
    """Guided where ``low < sigma / alpha <= high``, the plain conditional elsewhere.

    Guidance harms variety at high noise and does little at low noise, so that leaving it out there improves and saves
    (Kynkäänniemi et al. 2024, arXiv 2404.07724, who use ``(0.19, 1.61]`` for EDM2-XXL). Outside one plain forward is
    taken. Where every sample has its own time both are taken, in the guidance's own forward, and each sample keeps what
    is its own: which is which stays on the device.

    Args:
        denoiser: a guidance, such as :class:`~osmotic.guidance.ClassifierFree`.
        low: noise-to-signal ratio below and at which it is off, 0 or more.
        high: above which it is off; infinite by default.

    Raises:
        TypeError: for a denoiser that leads nothing.
        ValueError: for an empty interval, and on paths of matrices.
    """

    def __init__(self, denoiser: Denoiser, low: float, high: float = math.inf) -> None:
        super().__init__()
        refuse_matrices(denoiser, "Interval")
        if not 0 <= low < high:
            raise ValueError(f"An interval of guidance needs 0 <= low < high; got {low} and {high}.")
        self.guided, _ = led(denoiser, "Interval")
        self.low, self.high = low, high
        self.around(denoiser)

    @property
    def plain(self) -> Denoiser:
        return led(self.guided, "Interval")[1]

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        noisy = [level for level in levels if self.schedule.scalars(level)[1] > 0]
        for denoiser, here in ((self.guided, True), (self.plain, False)):
            part = [level for level in noisy if self._inside(level) is here]
            if part:
                denoiser.prepare(part, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        inside = self._inside(as_time(t))
        if isinstance(inside, Tensor):
            return self.both(x, t, cond, s)[1]
        estimate: Estimate = (self.guided if inside else self.plain)(x, t, cond, s)
        return estimate

    def both(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> tuple[Estimate, Estimate]:
        inside = self._inside(as_time(t))
        if inside is False:
            alone: Estimate = self.plain(x, t, cond, s)
            return alone, alone
        plain, guided = self.guided.both(x, t, cond, s)
        return plain, guided if inside is True else plain.lerp(guided, inside)

    def _inside(self, t: Tensor) -> bool | Tensor:
        """Whether a time lies within, True or False; per sample 1 or 0, ``(B,)``."""

        def look() -> bool | Tensor:
            alpha, sigma = self.schedule.numbers(t)
            if isinstance(alpha, Tensor) or isinstance(sigma, Tensor):
                rho = torch.as_tensor(sigma / alpha)
                return ((rho > self.low) & (rho <= self.high)).to(rho.dtype)
            return self.low < (sigma / alpha if alpha else math.inf) <= self.high

        return once(t, self, look)
