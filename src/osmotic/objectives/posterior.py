"""Gaussians between the levels of a path: the forward step, the posterior of a less noisy level, and its mean.

Any two times s < t of any path will do; DDPM's constants are these numbers at neighbouring levels: ``beta_t`` is the
forward variance, ``beta tilde`` the posterior's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from osmotic.estimate import Target, like
from osmotic.levels import as_time
from osmotic.schedules import Number, Schedule


class Step(NamedTuple):
    """The numbers of one reverse step from t to s < t, float64, of the times' shape.

    ``q(x_s | x_t, x0) = N(x x_t + x0 x0, small I)``; ``large`` is the variance of ``q(x_t | x_s)``, the other fixed
    choice for the reverse step's (Ho et al. 2020, arXiv 2006.11239).
    """

    x: Tensor
    x0: Tensor
    small: Tensor
    large: Tensor


def step(schedule: Schedule, t: Number, s: Number) -> Step:
    """The numbers of the reverse step from t to s.

    With ``r = sigma_s alpha_t / (alpha_s sigma_t)``: ``x = r sigma_s / sigma_t``, ``x0 = alpha_s (1 - r^2)``,
    ``small = sigma_s^2 (1 - r^2)``, ``large = sigma_t^2 (1 - r^2)``. Finite also at alpha_t = 0 and sigma_s = 0.

    Args:
        t: the noisier time, ``()`` or ``(B,)``, with sigma_t > 0.
        s: the less noisy time, likewise; 0 <= s < t.
    """
    alpha, sigma = schedule(as_time(t).double())
    alpha_s, sigma_s = schedule(as_time(s).double())
    r = sigma_s * alpha / (alpha_s * sigma)
    share = 1 - r**2
    return Step(r * sigma_s / sigma, alpha_s * share, sigma_s**2 * share, sigma**2 * share)


def forward(schedule: Schedule, t: Number, s: Number) -> tuple[Tensor, Tensor]:
    """``q(x_t | x_s) = N(scale x_s, variance I)``: DDPM's ``sqrt(1 - beta)`` and ``beta`` for neighbouring levels.

    Args:
        t: the noisier time.
        s: the less noisy time, s < t; 0 gives the path itself, ``(alpha_t, sigma_t^2)``.

    Returns:
        ``(scale, variance)``, float64.
    """
    alpha, _ = schedule(as_time(t).double())
    alpha_s, _ = schedule(as_time(s).double())
    return alpha / alpha_s, step(schedule, t, s).large


def posterior(schedule: Schedule, x0: Tensor, x: Tensor, t: Number, s: Number) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``q(x_s | x_t, x0)``, the Gaussian that a reverse step imitates.

    Args:
        x0: clean samples, ``(B, *S)``.
        x: the same at time t, ``(B, *S)``.
        t: the noisier time, ``()`` or ``(B,)``.
        s: the less noisy time, likewise.

    Returns:
        The mean ``(B, *S)`` and the variance of each element, float64 of the times' shape; 0 at s = 0.
    """
    numbers = step(schedule, t, s)
    of_x, of_x0 = like(x, numbers.x, numbers.x0)
    return of_x * x + of_x0 * x0, numbers.small


class Mean(Target):
    """The posterior's mean one level down, ``E[x_s | x_t, x0]`` at ``s = max(t - 1/levels, 0)``: DDPM's mu.

    ``a = x alpha_t + x0``, ``b = x sigma_t`` in the numbers of :func:`step`. It says less about x0 the finer the
    levels are (Ho et al. 2020, arXiv 2006.11239, section 3.2).

    Args:
        levels: T, at least 1.
    """

    def __init__(self, levels: int) -> None:
        if levels < 1:
            raise ValueError(f"Mean needs at least one level; got {levels}.")
        self.levels = levels

    def row(self, schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
        numbers = step(schedule, t, (t.double() - 1 / self.levels).clamp(min=0))
        alpha, sigma = schedule(t)
        return (numbers.x * alpha + numbers.x0).to(t), (numbers.x * sigma).to(t)


def kl(log_ratio: Tensor) -> Tensor:
    """``KL(N(0, V1) || N(0, V2))`` of each element from ``log(V2 / V1)``: ``(r + expm1(-r)) / 2``, exact near 0."""
    return (log_ratio + torch.expm1(-log_ratio)) / 2
