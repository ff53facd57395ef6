"""Langevin dynamics: at one level, and annealed down the levels of a grid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate, like
from osmotic.levels import Level, as_time
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State
from osmotic.schedules import Number


def update(x: Tensor, eps: Tensor, sigma: float, share: Number, z: Tensor) -> Tensor:
    """One Langevin update with the step written as a share of the noise variance, ``step = share sigma^2``.

    ``x + step score + sqrt(2 step) z = x - share sigma eps + sigma sqrt(2 share) z``. The square root of two belongs
    there: without it the law is the score's density squared.

    Args:
        x: ``(B, *S)``.
        eps: the estimated noise there; the score is ``-eps / sigma``.
        sigma: of the level.
        share: one number, or one per sample ``(B,)``.
        z: standard normal noise, like x, times any root of a temperature.
    """
    if not isinstance(share, Tensor):
        return x.add(eps, alpha=-share * sigma).add_(z, alpha=sigma * math.sqrt(2 * share))
    drift, spread = like(x, share * -sigma, (2 * share).sqrt() * sigma)
    return x + drift * eps + spread * z


@torch.no_grad()
def langevin(
    denoiser: Denoiser,
    x: Tensor,
    t: Tensor | float,
    step: float,
    updates: int,
    cond: object = None,
    temperature: float = 1.0,
    generator: Generators = None,
) -> Tensor:
    """Unadjusted Langevin dynamics at one noise level: ``x += step score + sqrt(2 step temperature) z``, repeated.

    The stationary law is ``p_t(x)^(1 / temperature)`` up to the step's own bias: on a Gaussian of variance V it has
    variance ``temperature V / (1 - step / (2 V))``, and no law at all for steps of 2 V or more. Temperature 0 climbs
    to a mode. Parisi 1981; Roberts & Tweedie 1996.

    Args:
        denoiser: whose score at t is followed.
        x: where to start, ``(B, *S)``.
        t: the level, with sigma > 0.
        step: in units of x squared, positive.
        updates: how many.
        cond: handed to the denoiser.
        temperature: k_B T, at least 0; 1 samples p_t.
        generator: one, or one per sample.

    Raises:
        ValueError: for a step, count or temperature out of range, or at sigma = 0.
    """
    level = t if isinstance(t, Level) else Level.of(as_time(t))
    _, sigma = denoiser.schedule.scalars(level)
    if not (step > 0 and updates >= 0 and temperature >= 0 and sigma > 0):
        raise ValueError(
            "Langevin dynamics needs step > 0, updates >= 0, temperature >= 0 and sigma > 0; got "
            f"step={step}, updates={updates}, temperature={temperature} and sigma={sigma}."
        )
    for _ in range(updates):
        z = normal_like(x, generator) * math.sqrt(temperature)
        x = update(x, denoiser(x, level, cond).eps, sigma, step / sigma**2, z)
    return x


class AnnealedLangevin(Sampler):
    """Langevin updates at every level of a grid, from the noisiest to the cleanest, and at last the denoised mean.

    In the VE picture ``y = x / alpha, rho = sigma / alpha`` a level makes ``updates`` of ``y += step score + sqrt(2
    step) z`` with ``step = share rho^2`` and hands y to the next level as it is. The published ``step_lr (rho /
    rho_last)^2`` is ``share = step_lr / rho_last^2``. NCSN (Song & Ermon 2019, arXiv 1907.05600) has ten levels from 1
    to 0.01, 100 updates and share 0.2, as here; its ladder is the grid ``times.LogSNR(rho_last, rho_first)``. NCSNv2
    (2020, arXiv 2006.09011) has many levels, few updates and its own rule for the share, :meth:`ncsnv2`. From
    alpha = 0, where there is nothing to refine, one deterministic jump leads to the first level.

    It does not converge to the data's law at a fixed share: each level keeps the bias of :func:`langevin`.

    Args:
        share: the step as a share of rho squared, in (0, 2).
        updates: per level, at least 1.
        denoise: end with the estimate of x0, one evaluation more; False keeps the last level's noise.

    Attributes:
        order: 0, as it says above.
    """

    order = 0
    stochastic = True

    def __init__(self, share: float = 0.2, updates: int = 100, denoise: bool = True) -> None:
        if not (0 < share < 2 and updates >= 1):
            raise ValueError(
                f"AnnealedLangevin needs a share in (0, 2) and at least 1 update; got {share} and {updates}."
            )
        self.share, self.updates, self.denoise = share, updates, denoise
        self.evaluations = updates

    @classmethod
    def ncsnv2(cls, ratio: float, updates: int = 5, denoise: bool = True) -> AnnealedLangevin:
        """With NCSNv2's share: the one whose variance at a level stays nearest to that level's (technique 4).

        From ``ratio^2 rho^2`` the updates lead to ``(1 - share)^(2 updates) (ratio^2 - v) + v`` times rho^2, with ``v =
        2 share / (1 - (1 - share)^2)`` stationary; it is above 1, and the share makes it smallest.

        Args:
            ratio: between neighbouring levels, rho_i / rho_(i+1) > 1.
            updates: per level.
            denoise: as for the class.
        """
        if not ratio > 1:
            raise ValueError(f"NCSNv2's rule needs a ratio of levels above 1; got {ratio}.")

        def variance(log_share: float) -> float:
            share = math.exp(log_share)
            stationary = 2 / (2 - share)
            return (1 - share) ** (2 * updates) * (ratio**2 - stationary) + stationary

        # The variance falls, then rises, with the share: thirds close in on its minimum.
        low, high = math.log(1e-9), 0.0
        for _ in range(120):
            third = (high - low) / 3
            if variance(low + third) < variance(high - third):
                high -= third
            else:
                low += third
        return cls(math.exp(low), updates, denoise)

    def step(
        self,
        denoiser: Denoiser,
        x: Tensor,
        t: Tensor,
        s: Tensor,
        cond: object = None,
        state: State = None,
        generator: Generators = None,
    ) -> tuple[Tensor, State]:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = (denoiser.schedule.scalars(u) for u in (t, s))
        if alpha_t == 0:
            there: Estimate = denoiser(x, t, cond)
            return there.at(alpha_s, sigma_s), None
        for _ in range(self.updates):
            x = update(x, denoiser(x, t, cond).eps, sigma_t, self.share, normal_like(x, generator))
        if sigma_s == 0 and self.denoise:
            last: Estimate = denoiser(x, t, cond)
            return last.at(alpha_s, sigma_s), None
        return x * (alpha_s / alpha_t), None
