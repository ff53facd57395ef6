"""Quadratures of the probability-flow ODE ``dx = x0 dalpha + eps dsigma``: no derivative of a schedule is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.noise import Generators, normal_like
from osmotic.samplers.base import Sampler, State
from osmotic.samplers.lines import at_log_snr, rho
from osmotic.samplers.nodes import Halfway, as_level


class Euler(Sampler):
    """``x_s = x + x0 (alpha_s - alpha_t) + eps (sigma_s - sigma_t)``, which is the estimate read at s (DDIM with eta =
    0).
    """

    order = 1
    matrix_valued = True
    renoises = True

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
        return denoiser(x, t, cond).at(*denoiser.schedule.numbers(s)), None


class Midpoint(Halfway):
    """Second order by one more estimate at the middle of the step, valid down to sigma = 0."""

    order = 2
    evaluations = 2
    matrix_valued = True

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
        schedule = denoiser.schedule
        alone = t.ndim == s.ndim == 0 and t.device.type == s.device.type == "cpu"
        middle = self.inside(schedule, as_level(t), as_level(s))[0] if alone else (t + s) / 2
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.numbers(t), schedule.numbers(s)
        there = denoiser(x, t, cond).at(*schedule.numbers(middle))
        return x + denoiser(there, middle, cond).at(alpha_s - alpha_t, sigma_s - sigma_t), None


class Heun(Sampler):
    """EDM's sampler: Heun's second-order step, preceded by "churn" that adds noise and goes back to the matching level.

    In the VE picture ``y = x / alpha, rho = sigma / alpha``: with ``g = min(churn / steps, sqrt(2) - 1)`` the step
    starts from ``rho (1 + g)`` after adding the missing noise; then Euler to s, and the mean of both ends' estimates,
    except where sigma_s = 0 (Karras et al. 2022, arXiv 2206.00364, algorithm 2). On the path itself no division by
    alpha is needed, so the deterministic step is valid from alpha = 0 on.

    Args:
        churn: the added noise per step as a relative increase of rho, in [0, sqrt(2) - 1]; EDM's S_churn / N.
        lowest: rho below which nothing is added, EDM's S_min.
        highest: rho above which nothing is added, EDM's S_max.
        noise: standard deviation of the added noise, near 1; EDM's S_noise.

    Attributes:
        order: 2; 0 with churn, whose order is 2 only where the churn is made to fall as 1 / steps.
    """

    evaluations = 2

    def __init__(self, churn: float = 0.0, lowest: float = 0.0, highest: float = math.inf, noise: float = 1.0) -> None:
        if not 0 <= churn <= math.sqrt(2) - 1 + 1e-12:
            raise ValueError(
                f"Heun's churn lies in [0, sqrt(2) - 1] (EDM's S_churn divided by the number of steps); got {churn}."
            )
        self.churn, self.lowest, self.highest, self.noise = churn, lowest, highest, noise
        self.stochastic = churn > 0
        self.order = 0 if self.stochastic else 2

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
        schedule = denoiser.schedule
        if self.stochastic:
            x, t = self._churn(denoiser, x, t, generator)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.numbers(t), schedule.numbers(s)
        here: Estimate = denoiser(x, t, cond)
        there = here.at(alpha_s, sigma_s)
        if not isinstance(sigma_s, Tensor) and sigma_s == 0:
            return there, None
        change = alpha_s - alpha_t, sigma_s - sigma_t
        if isinstance(sigma_s, Tensor):
            return self._per_sample(denoiser, x, there, here.at(*change), t, s, cond), None
        slopes = here.at(*change) + denoiser(there, s, cond).at(*change)
        return x.add(slopes, alpha=0.5), None

    @staticmethod
    def _per_sample(
        denoiser: Denoiser, x: Tensor, there: Tensor, first: Tensor, t: Tensor, s: Tensor, cond: object
    ) -> Tensor:
        """The corrected step where times differ per sample; those that land at sigma = 0 keep Euler's."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = denoiser.schedule(t), denoiser.schedule(s)
        landed = sigma_s == 0
        # The denoiser is asked at t for the landed ones, whose answer is not used: never where sigma = 0.
        wide = landed.reshape(landed.shape + (1,) * (x.ndim - landed.ndim))
        second: Estimate = denoiser(torch.where(wide, x, there), torch.where(landed, t, s), cond)
        corrected = x + (first + second.at(alpha_s - alpha_t, sigma_s - sigma_t)) / 2
        return torch.where(wide, there, corrected)

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        return self._raise(denoiser, [t for t, _ in steps]) if self.stochastic else []

    def _raise(self, denoiser: Denoiser, levels: Sequence[Level]) -> list[Level]:
        """Keep at each level the noisier one where its step begins, None where nothing is added, and give them all."""
        schedule = denoiser.schedule
        limit = rho(schedule.scalars(denoiser.start))
        ratios = [rho(schedule.scalars(t)) for t in levels]
        churned = [self.lowest <= ratio <= self.highest and ratio < limit for ratio in ratios]
        raised = [min(r * (1 + self.churn), limit) for r, yes in zip(ratios, churned, strict=True) if yes]
        found = at_log_snr(schedule, [-math.log(r) for r in raised])
        unused = iter(found)
        for t, yes in zip(levels, churned, strict=True):
            t.memo[self, schedule, denoiser.start] = next(unused) if yes else None
        return found

    def _churn(self, denoiser: Denoiser, x: Tensor, t: Tensor, generator: Generators) -> tuple[Tensor, Tensor]:
        """Add noise and move to the level that has it, no further than the denoiser reaches."""
        schedule, t = denoiser.schedule, as_level(t)
        key = self, schedule, denoiser.start
        if key not in t.memo:
            self._raise(denoiser, [t])
        noisier = t.memo[key]
        if noisier is None:
            return x, t
        alpha, new_alpha = schedule.scalars(t)[0], schedule.scalars(noisier)[0]
        before, after = (rho(schedule.scalars(level)) for level in (t, noisier))
        deviation = new_alpha * self.noise * math.sqrt(after**2 - before**2)
        # Noise that goes up in level is new on any path: not a Brownian increment, which x has already seen.
        return (x * (new_alpha / alpha)).add(normal_like(x, generator), alpha=deviation), noisier
