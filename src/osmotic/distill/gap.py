"""What consistency losses share: two neighbouring levels of a trajectory, how often each is drawn, how far apart the
student's answers are.

Everything is stated in ``rho = sigma / alpha`` relative to the data's deviation sd, so it is the same on every path;
the papers' numbers are for sd = 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.distill.draws import rows, stratified
from osmotic.distill.twin import Twin
from osmotic.estimate import Estimate
from osmotic.schedules import Schedule
from osmotic.times import Karras
from osmotic.training.task import Noise

# EDM's grid, 0.002 to 80, and iCT's law, log(sigma) normal of mean -1.1 and deviation 2, for data of deviation 1.
CLEANEST, NOISIEST = 0.004, 160.0
MEAN, DEVIATION = -1.1 + math.log(2), 2.0

# This part of the draws is spread evenly: the log-normal law hardly sees the levels where sampling starts, and what the
# network says there decides how many samples each mode gets.
EVEN = 0.15
# What a pair counts at least: 1 / gap is 0 where there is no signal, which is where sampling starts on many paths. With
# one over the relative gap, which is finite there, the robust metric of distillation lost the smaller of two modes.
FLOOR = 0.1
LIFT = 0.5  # of squared errors: with 0 the noisiest levels lag, and the smaller of two modes gets too much
# The smallest relative gap that is told from none: below it float32 has no digits of the difference.
CLOSE = 1e-5


class Intervals:
    """The intervals of a Karras grid with a law of how often each is drawn.

    The grid starts at the path's noisiest level and its last interval ends at exactly 0. The law gives each interval
    the share of a normal ``log rho`` that lies in it, as in improved consistency training (Song & Dhariwal 2023, arXiv
    2310.14189), and a part of it is spread evenly.

    Args:
        schedule: the path.
        sigma_data: sd.
        count: how many intervals, positive.
        even: the part of the draws that is spread evenly, in [0, 1].
    """

    def __init__(self, schedule: Schedule, sigma_data: float, count: int, even: float = EVEN) -> None:
        times = Karras(CLEANEST * sigma_data, NOISIEST * sigma_data)(schedule, count)
        below = torch.special.ndtr((-schedule.log_snr(times) / 2 - math.log(sigma_data) - MEAN) / DEVIATION)
        shares = -below.diff()
        self.times = times
        self.shares = (1 - even) * shares / shares.sum() + even / count

    def draw(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """The noisy end t and the clean end u of an interval for each slot, ``(B,)`` float64, stratified."""
        t, u = self.chain(noise, 1)
        return t, u

    def chain(self, noise: Noise, length: int) -> tuple[Tensor, ...]:
        """The ends of so many intervals in a row for each slot, falling, ``(B,)`` float64 each; t is drawn by the law.

        A row that would pass the data begins as late as it can.
        """
        index = torch.searchsorted(self.shares.cumsum(0)[:-1].contiguous(), stratified(noise))
        index = index.clamp(max=len(self.shares) - length)
        return tuple(noise.own(self.times[index + k]) for k in range(length + 1))


def spread(schedule: Schedule, sigma_data: float, noise: Noise) -> Tensor:
    """Times of the log-normal law, a part of them even in ``log rho`` from sd up, ``(count,)`` float64, stratified."""
    share = stratified(noise)
    normal = MEAN + DEVIATION * torch.special.ndtri(((share - EVEN) / (1 - EVEN)).clamp(1e-12, 1 - 1e-12))
    log_rho = torch.where(share < EVEN, share / EVEN * math.log(NOISIEST), normal) + math.log(sigma_data)
    return noise.own(schedule.time(-2 * log_rho).clamp(max=1.0))


def difference(
    student: Denoiser,
    target: Denoiser,
    x: Tensor,
    t: Tensor,
    y: Tensor,
    u: Tensor,
    cond: object = None,
    s: Tensor | None = None,
) -> Tensor:
    """``G(x, t, s) - sg G(y, u, s)`` with the same dropout in both, s = 0 by default: a consistency function's answers.

    0 along an exact flow map's trajectories. Where u is s no network is asked: ``G(y, s, s) = y``.

    Args:
        student: whose map is trained.
        target: whose map is looked at; the student itself, or a slow copy.
        x: noisy samples ``(B, *S)`` at times t ``(B,)``.
        y: points of the same trajectories at the cleaner times u ``(B,)``.
        cond: handed to both.
        s: times aimed at, ``(B,)`` in [0, u]; None is the data.

    Raises:
        ValueError: if some u lies above its t.
    """
    if bool((u > t + CLOSE).any()):
        raise ValueError(
            f"The target of a consistency loss is the cleaner point, and u lies {float((u - t).max()):.3g} above t; "
            "give 0 <= u <= t."
        )
    aim = torch.zeros_like(t) if s is None else s

    def landing(estimate: Estimate) -> Tensor:
        return estimate.x0 if s is None else estimate.at(*student.schedule.numbers(s))

    twin = Twin(x.device)
    here = landing(student(x, t, cond, aim))
    with torch.no_grad(), twin.again():
        landed = u <= aim
        # The whole batch goes through the network, so that the dropout masks meet the same rows.
        there = landing(target(y, torch.where(landed, t, u), cond, aim))
    difference: Tensor = here - torch.where(rows(landed, x), y, there)
    return difference


def squared(difference: Tensor, sigma_data: float) -> Tensor:
    """``mean((d / sd)^2)`` over a sample's dimensions, ``(B,)``."""
    return (difference / sigma_data).square().flatten(1).mean(1)


def huber(difference: Tensor, sigma_data: float, c: float) -> Tensor:
    """``sqrt(m + c^2) - c`` with ``m = mean((d / sd)^2)`` over the whole sample, ``(B,)``.

    Improved consistency training's pseudo-Huber metric divided by sqrt(dimension): a square where differences are well
    below c, a distance above (Song & Dhariwal 2023, arXiv 2310.14189).
    """
    mean = squared(difference, sigma_data)
    # (sqrt(m + c^2) - c) without the difference of two near numbers.
    return mean / ((mean + c**2).sqrt() + c)


def closeness(schedule: Schedule, t: Tensor, u: Tensor, sigma_data: float, lift: float = 0.0) -> Tensor:
    """The weight of a pair, ``sd / (rho_t - rho_u) (1 + (rho_t / sd)^2)^(lift / 2)`` and a little, ``(B,)`` float64.

    A difference of the order of the gap then counts the same at every level; without it the levels near the data, whose
    errors all others inherit, hardly learn (Geng et al. 2024, arXiv 2406.14548). The little is :data:`FLOOR`.

    Args:
        lift: how much more noisy levels count, from 0, the inverse gap, to 1, the inverse relative gap; for squares.
    """
    (alpha, sigma), (alpha_u, sigma_u) = schedule(t), schedule(u)
    # Multiplied by alpha_t alpha_u, so that it is finite where there is no signal.
    size, signal = torch.hypot(sigma, alpha * sigma_data), alpha * sigma_data
    gap, scale = sigma * alpha_u - alpha * sigma_u, size**lift * signal ** (1 - lift) * alpha_u
    return scale / torch.maximum(gap, CLOSE * size * alpha_u) + FLOOR
