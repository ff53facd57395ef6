"""The prior of latents that are nearly normal: a learned correction of the normal's own denoiser."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import Level, as_time
from osmotic.schedules import Number


class Mixed(Denoiser):
    """``(1 - a) normal + a learned``, channel by channel: LSGM's mixed score (Vahdat et al. 2021, arXiv 2106.05931).

    The normal part is the exact denoiser of N(0, I), ``x0 = alpha x / (alpha^2 + sigma^2)`` and ``eps = sigma x /
    (alpha^2 + sigma^2)``, so the network need learn only how the latents differ from it. This is the score of the
    geometric mixture ``N(0, I)^(1 - a) p^a`` at each noise level.

    Args:
        denoiser: the learned part, of a posterior mean.
        channels: of the latents ``(B, C, *P)``.
        share: a where training begins, in (0, 1).

    Attributes:
        logit: ``log(a / (1 - a))`` of each channel, learned.
    """

    def __init__(self, denoiser: Denoiser, channels: int, share: float = 0.5) -> None:
        super().__init__()
        if channels < 1 or not 0 < share < 1:
            raise ValueError(f"Mixed needs channels and a share in (0, 1); got {channels} channels and {share}.")
        if denoiser.schedule.matrix_valued or not denoiser.diagonal:
            raise ValueError("Mixed corrects a normal's posterior mean on a path of two numbers; this has none.")
        self.denoiser = denoiser
        self.around(denoiser)
        self.logit = nn.Parameter(torch.full((channels,), math.log(share / (1 - share))))

    @property
    def share(self) -> Tensor:
        """a of each channel, ``(C,)`` in (0, 1)."""
        return torch.sigmoid(self.logit)

    def prepare(self, levels: Sequence[Level], device: torch.device) -> None:
        self.denoiser.prepare(levels, device)

    def forward(self, x: Tensor, t: Tensor, cond: object = None, s: Number | None = None) -> Estimate:
        if s is not None:
            raise ValueError("A mixed score has no flow map; sample it with a solver.")
        if x.ndim < 2 or x.shape[1] != len(self.logit):
            raise ValueError(f"This prior has {len(self.logit)} channels; got latents of shape {tuple(x.shape)}.")
        t = as_time(t)
        learned: Estimate = self.denoiser(x, t, cond)
        alpha, sigma = self.schedule.numbers(t)
        power = alpha**2 + sigma**2
        to_x0, to_eps = like(x, alpha / power, sigma / power)
        share = self.share.to(x).reshape(-1, *[1] * (x.ndim - 2))
        return Estimate(torch.lerp(x * to_x0, learned.x0, share), torch.lerp(x * to_eps, learned.eps, share), learned.v)
