"""What the methods' losses have in common: points of the path, numbers that are drawn for each sample, rows."""

from __future__ import annotations

import torch
from torch import Tensor

from osmotic.estimate import like
from osmotic.laws import Stratified, Uniform
from osmotic.schedules import Schedule
from osmotic.training.task import Noise, Stream


def noised(schedule: Schedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """``alpha x0 + sigma eps`` at times t ``(B,)``, like x0 ``(B, *S)``."""
    alpha, sigma = like(x0, *schedule(t))
    return x0 * alpha + eps * sigma


def shares(noise: Noise, stream: int) -> Tensor:
    """One uniform number in (0, 1) a slot, ``(B,)`` float64 on the CPU, where times live."""
    draw = torch.rand(noise.total, generator=noise.generator(stream), dtype=torch.float64)
    return noise.own(draw.clamp(1e-12, 1 - 1e-12))


def stratified(noise: Noise) -> Tensor:
    """Uniform numbers in (0, 1) that fill the whole batch evenly, ``(noise.total,)`` float64 on the CPU."""
    return Stratified(Uniform()).shares(noise.total, noise.generator(Stream.TIME))


def integers(noise: Noise, stream: int, count: int) -> Tensor:
    """One of ``0 .. count - 1`` a slot, ``(B,)`` int64 on the CPU."""
    return noise.own(torch.randint(count, (noise.total,), generator=noise.generator(stream)))


def rows(chosen: Tensor, x: Tensor) -> Tensor:
    """Which samples are chosen, ``(B,)`` bool, as wide as x ``(B, *S)`` and where it lies."""
    return chosen.to(x.device).reshape(-1, *[1] * (x.ndim - 1))
