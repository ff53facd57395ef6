"""The jump family: ``x_s = alpha_s x0 + sigma_s (sqrt(1 - g^2) eps + g z)``.

g = 0 is DDIM, one particular g is DDPM's posterior, g = 1 is multistep consistency sampling, and between lies CTM's
gamma.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import Tensor

from osmotic.condition import Condition
from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.noise import Generators, increment, normal
from osmotic.samplers.base import Sampler, State, renewed


class DDIM(Sampler):
    """``g = eta sqrt(1 - exp(-2h))``: the generalised DDIM step (Song et al. 2021, arXiv 2010.02502).

    eta multiplies the injected standard deviation. eta = 0 is deterministic (and equals DPM-Solver-1 and Euler in
    sigma / alpha), eta = 1 is DDPM's posterior between any two levels.

    Args:
        eta: in [0, 1].
    """

    order = 1
    renoises = True

    def __init__(self, eta: float = 0.0) -> None:
        if not 0 <= eta <= 1:
            raise ValueError(f"DDIM's eta lies in [0, 1]; got {eta}.")
        self.eta = eta
        self.stochastic, self.matrix_valued = eta > 0, eta == 0

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
        estimate: Estimate = denoiser(x, t, cond)
        if not self.stochastic:
            return estimate.at(*denoiser.schedule.numbers(s)), None
        alpha, sigma = denoiser.schedule.scalars(s)
        if sigma == 0:
            return estimate.at(alpha, sigma), None
        pairs = denoiser.schedule.scalars(t), (alpha, sigma)
        fresh = (self.eta * sigma) ** 2 * renewed(*pairs)
        x = estimate.at(alpha, math.sqrt(sigma**2 - fresh))
        return x.add(increment(x, generator, *pairs), alpha=math.sqrt(fresh)), None


class DDPM(Sampler):
    """Ancestral sampling: the posterior's mean, with a variance between its two fixed choices.

    Mean of ``q(x_s | x_t, x0)`` with x0 estimated; ``log V = v log V_large + (1 - v) log V_small``, where
    ``V_small = sigma_s^2 (1 - exp(-2h))`` is the posterior's variance (beta tilde, optimal for a single point) and
    ``V_large = sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2`` is the forward step's (beta, optimal for a unit normal).
    Ho et al. 2020 (arXiv 2006.11239); the interpolation is Improved DDPM's (arXiv 2102.09672). No noise is added in
    the last step.

    Args:
        v: in [0, 1]; 0 is the small variance, 1 the large one. A denoiser that has learned its variance brings its own.
    """

    order = 1
    stochastic = True
    draws = True
    renoises = True

    def __init__(self, v: float = 0.0) -> None:
        if not 0 <= v <= 1:
            raise ValueError(f"DDPM's v lies in [0, 1]; got {v}.")
        self.v = v

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
        alpha, sigma = denoiser.schedule.scalars(s)
        estimate: Estimate = denoiser(x, t, drawn(denoiser, x, cond, generator))
        if sigma == 0:
            return estimate.at(alpha, sigma), None
        alpha_t, sigma_t = denoiser.schedule.scalars(t)
        share = renewed((alpha_t, sigma_t), (alpha, sigma))
        small, large = sigma**2 * share, sigma_t**2 * share
        x = estimate.at(alpha, math.sqrt(sigma**2 - small))
        noise = increment(x, generator, (alpha_t, sigma_t), (alpha, sigma))
        if estimate.v is not None:
            # V_large / V_small = (sigma_t / sigma_s)^2, so sqrt(V) = sqrt(V_small) (sigma_t / sigma_s)^v.
            return x.addcmul(noise, (estimate.v * math.log(sigma_t / sigma)).exp(), value=math.sqrt(small)), None
        deviation = math.sqrt(small ** (1 - self.v) * large**self.v)
        return x.add(noise, alpha=deviation), None


class Gamma(Sampler):
    """A jump along an exact or learned flow map, then partly new noise: CTM's gamma-sampling.

    The map aims at the level where the noise is ``sqrt(1 - gamma^2) sigma_s`` (relative to alpha_s) and ``gamma
    sigma_s z`` is added, so an exact flow map keeps every marginal exact at any number of steps. gamma = 1 is
    multistep consistency sampling (Song et al. 2023, arXiv 2303.01469), gamma = 0 a deterministic jump (Kim et al.
    2024, arXiv 2310.02279).

    Args:
        gamma: in [0, 1].

    Raises:
        ValueError: while sampling, from denoisers that have no flow map.
    """

    order = math.inf
    aims = True

    def __init__(self, gamma: float = 0.0) -> None:
        if not 0 <= gamma <= 1:
            raise ValueError(f"Gamma's gamma lies in [0, 1]; got {gamma}.")
        self.gamma = gamma
        self.stochastic = gamma > 0

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
        alpha, sigma = schedule.scalars(s)
        if self.gamma == 0 or sigma == 0:
            return denoiser(x, t, cond, s).at(alpha, sigma), None
        kept = math.sqrt(1 - self.gamma**2) * sigma
        aim = schedule.time(2 * math.log(alpha / kept)) if kept > 0 else s.new_zeros(())
        x = denoiser(x, t, cond, aim).at(alpha, kept)
        noise = increment(x, generator, schedule.scalars(t), (alpha, sigma))
        return x.add(noise, alpha=self.gamma * sigma), None


def drawn(denoiser: Denoiser, x: Tensor, cond: object, generator: Generators) -> object:
    """The condition with fresh latents for a denoiser that reads some, as it is for all others."""
    if not denoiser.latents:
        return cond
    latent = normal((len(x), denoiser.latents), generator, x.device, x.dtype)
    return replace(cond, latent=latent) if isinstance(cond, Condition) else Condition(latent=latent)
