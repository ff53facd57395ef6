"""The reverse SDE stepped directly: Euler-Maruyama in two clocks, and the reverse-diffusion predictor."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from osmotic.denoiser import Denoiser
from osmotic.estimate import Estimate
from osmotic.levels import Level
from osmotic.noise import Generators, Pair, increment
from osmotic.samplers.base import Sampler, State, half_log_snr_step, renewed
from osmotic.samplers.nodes import as_level
from osmotic.schedules import Schedule

# Where a step goes on average, and the deviation of the noise it adds there.
Move: TypeAlias = tuple[Tensor, float]


def frozen(estimate: Estimate, x: Tensor, t: Pair, s: Pair, tau: float = 1.0) -> Move:
    """The step of the SDE that is exact while the estimate of x0 stays what it is, for a step of any length.

    ``x_s = (sigma_s / sigma_t) e^(-tau^2 h) x + (1 - e^(-(1 + tau^2) h)) alpha_s x0 + sigma_s sqrt(1 - e^(-2 tau^2 h))
    xi`` with h the step in half log-SNR, infinite from alpha = 0 on. tau = 0 is DDIM's jump, tau = 1 DDPM's posterior.

    Args:
        estimate: at t.
        x: ``(B, *S)``.
        t: ``(alpha, sigma)`` before the step.
        s: ``(alpha, sigma)`` after it, with sigma > 0.
        tau: noise level, at least 0.

    Returns:
        The mean ``(B, *S)`` and the deviation.
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = t, s
    kept = sigma_s * alpha_t / (alpha_s * sigma_t)  # e^-h
    mean = estimate.at(alpha_s * (1 - kept ** (1 + tau**2)), 0.0).add(x, alpha=sigma_s / sigma_t * kept**tau**2)
    # At tau = 1 in the form that is exact for the shortest steps too.
    share = renewed(t, s) if tau == 1 else 1 - kept ** (2 * tau**2)
    return mean, sigma_s * math.sqrt(share)


class _Diffusion(Sampler):
    """A step that adds noise to a mean, except where it lands on clean data: there it is the estimate."""

    order = 1
    stochastic = True

    @abstractmethod
    def move(self, schedule: Schedule, estimate: Estimate, x: Tensor, t: Tensor, s: Tensor) -> Move:
        """The mean at s, where sigma_s > 0, and the deviation of the noise to add."""

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
        pairs = schedule.scalars(t), schedule.scalars(s)
        estimate: Estimate = denoiser(x, t, cond)
        if pairs[1][1] == 0:
            return estimate.at(*pairs[1]), None
        mean, deviation = self.move(schedule, estimate, x, t, s)
        return mean.add(increment(mean, generator, *pairs), alpha=deviation) if deviation else mean, None


class EulerMaruyama(_Diffusion):
    """Euler-Maruyama of the reverse SDE with noise level tau, stepped in half log-SNR; strong and weak order 1.

    In the variance-preserving picture ``u = x / n, n = hypot(alpha, sigma), a = alpha / n, c = sigma / n`` the SDE of
    Song et al. 2021 (arXiv 2011.13456) is ``du = u dlog a - (1 + tau^2) c eps dlam + tau sqrt(2) c dw`` whatever the
    schedule, so no derivative of one is needed: ``u += u log(a_s / a_t) - (1 + tau^2) h c eps + tau sqrt(2 h) c xi``.
    tau = 0 is the probability-flow ODE, 1 the reverse SDE; any tau keeps the marginals. The last step returns the
    denoised mean.

    Args:
        tau: noise level, at least 0.
        longest: the largest ``(1 + tau^2) h`` stepped so; beyond 2 Euler-Maruyama is unstable, and longer steps (the
            one from alpha = 0 is infinite) are those that are exact for a frozen estimate, :func:`frozen`.
    """

    def __init__(self, tau: float = 1.0, longest: float = 2.0) -> None:
        if not (0 <= tau < math.inf and longest > 0):
            raise ValueError(
                f"EulerMaruyama needs 0 <= tau < infinity and a positive longest step; got {tau} and {longest}."
            )
        self.tau, self.longest = tau, longest
        self.stochastic = tau > 0

    def move(self, schedule: Schedule, estimate: Estimate, x: Tensor, t: Tensor, s: Tensor) -> Move:
        pair_t, pair_s = schedule.scalars(t), schedule.scalars(s)
        h = half_log_snr_step(pair_t, pair_s)
        if (1 + self.tau**2) * h > self.longest:
            return frozen(estimate, x, pair_t, pair_s, self.tau)
        before, after = math.hypot(*pair_t), math.hypot(*pair_s)
        c = pair_t[1] / before
        drift = math.log(pair_s[0] / after * before / pair_t[0])
        mean = estimate.at(0.0, -after * h * (1 + self.tau**2) * c).add(x, alpha=after / before * (1 + drift))
        return mean, after * self.tau * math.sqrt(2 * h) * c


class NativeEulerMaruyama(_Diffusion):
    """Euler-Maruyama of the same SDE stepped in the schedule's own time, as published; strong and weak order 1.

    ``x -= (f x - (1 + tau^2) / 2 g^2 score) dt`` plus ``tau g sqrt(dt) xi``, with ``dx = f x dt + g dw`` the forward
    SDE, :meth:`Schedule.sde` (Song et al. 2021, arXiv 2011.13456; tau: Karras et al. 2022, arXiv 2206.00364, equation
    6). f is infinite at alpha = 0, whence the step is :func:`frozen`; the last step returns the denoised mean. How well
    it does at a number of steps depends on the schedule, unlike :class:`EulerMaruyama`.

    Args:
        tau: noise level, at least 0: 0 is Euler on the probability-flow ODE, 1 the reverse SDE.
    """

    def __init__(self, tau: float = 1.0) -> None:
        if not 0 <= tau < math.inf:
            raise ValueError(f"NativeEulerMaruyama needs 0 <= tau < infinity; got {tau}.")
        self.tau = tau
        self.stochastic = tau > 0

    def ahead(self, denoiser: Denoiser, steps: Sequence[tuple[Level, Level]]) -> list[Level]:
        _sde_at(denoiser.schedule, [t for t, _ in steps])
        return []

    def move(self, schedule: Schedule, estimate: Estimate, x: Tensor, t: Tensor, s: Tensor) -> Move:
        pair_t, pair_s = schedule.scalars(t), schedule.scalars(s)
        if pair_t[0] == 0:
            return frozen(estimate, x, pair_t, pair_s, self.tau)
        t, s = as_level(t), as_level(s)
        if ("sde", schedule) not in t.memo:
            _sde_at(schedule, [t])
        (f, g2), dt = t.memo["sde", schedule], t.number - s.number
        mean = estimate.at(0.0, -(1 + self.tau**2) / 2 * g2 * dt / pair_t[1]).add(x, alpha=1 - f * dt)
        return mean, self.tau * math.sqrt(g2 * dt)


def _sde_at(schedule: Schedule, levels: Sequence[Level]) -> None:
    """Keep drift and diffusion at levels, found at once."""
    found = schedule.sde(torch.tensor([t.number for t in levels], dtype=torch.float64))
    for t, *pair in zip(levels, *(each.tolist() for each in found), strict=True):
        t.memo["sde", schedule] = pair


class ReverseDiffusion(_Diffusion):
    """The reverse-diffusion predictor: the discrete forward step, turned round as the SDE is; weak order 1.

    Between two levels of any path the forward step is ``x_t = a x_s + b z`` with ``a = alpha_t / alpha_s`` and ``b^2 =
    sigma_t^2 - a^2 sigma_s^2``, so ``x_s = x - (a - 1) x + b^2 score + b xi`` (Song et al. 2021, arXiv 2011.13456,
    appendix E): ``(2 - sqrt(1 - beta)) x + beta score + sqrt(beta) xi`` on DDPM's path. It holds for a near 1; from
    alpha = 0, where the forward step forgets its start, the step is :func:`frozen`.
    """

    def move(self, schedule: Schedule, estimate: Estimate, x: Tensor, t: Tensor, s: Tensor) -> Move:
        pair_t, pair_s = schedule.scalars(t), schedule.scalars(s)
        if pair_t[0] == 0:
            return frozen(estimate, x, pair_t, pair_s)
        a = pair_t[0] / pair_s[0]
        b = pair_t[1] * math.sqrt(renewed(pair_t, pair_s))
        return estimate.at(0.0, -(b**2) / pair_t[1]).add(x, alpha=2 - a), b
